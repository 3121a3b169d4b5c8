"""The training index of a bundle, by which users of the bundle can apply the `Gate`.

Three files: ``gate.json`` holds threshold, levels and the patient of each slice; ``gate_index.npy`` holds the edge map
of each training slice, see `packed_maps`; ``gate_projection.npy`` is the `Projection` by which they are searched. There
are no images and no names in it: patients have pseudonyms made with a secret key, and rows are in their order. The maps
are rough sketches of the slices, so they may be shared only with those who may have the bundle.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.gate import Gate
from medvar_engine.memorisation.packed_maps import NUMBERS
from medvar_engine.memorisation.projection import Projection
from medvar_engine.storage import sha256_of
from medvar_engine.untrusted import plain_json

SCHEMA_VERSION = 3
GATE = "gate.json"
INDEX = "gate_index.npy"
PROJECTION = "gate_projection.npy"
FILES = (GATE, INDEX, PROJECTION)
_AGAIN = "Get the bundle from its source again, or make its index again: `medvar gate BUNDLE --data SLICES`."


def pack_index(gate: Gate, *, key: bytes | None = None) -> dict[str, bytes]:
    """The content of the three `FILES` by name, for writing into a bundle.

    Args:
        gate: the gate of the training slices.
        key: the key of the pseudonyms. With the key, the patient of a flagged slice can be found later, see
        `pseudonym`; by default the key is random and not stored.
    """
    if key is None:
        key = secrets.token_bytes(32)
    names = np.array([pseudonym(patient, key) for patient in gate.patients])
    order = np.argsort(names, kind="stable")
    files = {INDEX: _npy(gate.index[order]), PROJECTION: _npy(gate.projection.pack())}
    patients, slices = np.unique(names, return_counts=True)
    values = {
        "schema_version": SCHEMA_VERSION,
        "threshold": gate.threshold,
        "levels": list(gate.levels),
        "sha256": {name: sha256_of(data) for name, data in files.items()},
        "patients": dict(zip(patients.tolist(), slices.tolist(), strict=True)),
    }
    return {**files, GATE: json.dumps(values, indent=1).encode()}


def pseudonym(patient: str, key: bytes) -> str:
    """The pseudonym of a patient in an index that was made with ``key``."""
    return hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:16]


def known_slices(bundle: Bundle) -> int | None:
    """The number of training slices in the index; None without an index."""
    return sum(_about(bundle.read).slices.values()) if GATE in bundle.sha256 else None


def read_index(read: Callable[[str], bytes]) -> Gate:
    """Read the gate of a bundle; ``read`` returns the bytes of a file by name, like `Bundle.read`.

    Raises `MedvarError` when a file is missing or damaged, or does not belong to ``gate.json``.
    """
    about = _about(read)
    index = _array(_checked(read, INDEX, about.sha256), INDEX, np.uint8, 2)
    total = sum(about.slices.values())
    if index.shape != (total, NUMBERS):
        raise MedvarError(f"{GATE} does not give the patient of each of the {len(index)} rows of {INDEX}. {_AGAIN}")
    patients = np.repeat(list(about.slices), list(about.slices.values())).tolist()
    row = _array(_checked(read, PROJECTION, about.sha256), PROJECTION, np.float16, 1)
    try:
        return Gate(Projection.unpack(row), index, patients, about.levels, about.threshold)
    except MedvarError as error:
        raise MedvarError(f"The training index cannot be used: {error} {_AGAIN}") from error


class _About(NamedTuple):
    """The content of ``gate.json``."""

    threshold: float
    levels: tuple[float, float]
    slices: dict[str, int]  # patient, in the order of the rows → training slices
    sha256: dict[str, str]  # of the two files beside it


def _about(read: Callable[[str], bytes]) -> _About:
    try:
        values = plain_json.loads(read(GATE))
        version = values["schema_version"]
        if version in (1, 2):
            raise MedvarError(
                f"{GATE} belongs to an earlier version, which found fewer copies, and is no longer supported. The "
                "owner of "
                "the slices can make it again: `medvar gate BUNDLE --data SLICES`. --copy-policy off works without it."
            )
        if version != SCHEMA_VERSION:
            raise MedvarError(f"{GATE} has format {version}; this version reads {SCHEMA_VERSION}. Update medvar.")
        slices = {str(name): int(count) for name, count in sorted(values["patients"].items())}
        whole, part = map(float, values["levels"])
        hashes = {file: str(values["sha256"][file]) for file in (INDEX, PROJECTION)}
        about = _About(float(values["threshold"]), (whole, part), slices, hashes)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise MedvarError(f"{GATE} is damaged ({type(error).__name__}: {error}). {_AGAIN}") from error
    if min(slices.values(), default=0) < 1:
        raise MedvarError(f"{GATE} does not give the patients of the slices in {INDEX}. {_AGAIN}")
    return about


def _checked(read: Callable[[str], bytes], name: str, hashes: dict[str, str]) -> bytes:
    content = read(name)
    if sha256_of(content) != hashes[name]:
        raise MedvarError(f"{name} is not the file that {GATE} lists: its sha256 differs. {_AGAIN}")
    return content


def _npy(array: npt.NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array.astype(array.dtype.newbyteorder("<")), (1, 0), allow_pickle=False)
    return content.getvalue()


def _array(content: bytes, name: str, dtype: npt.DTypeLike, axes: int) -> npt.NDArray[Any]:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # parsing the header as a Python literal can raise many exceptions
        raise MedvarError(f"{name} is not a numpy array, or is incomplete: {error}. {_AGAIN}") from error
    if array.dtype != dtype or array.ndim != axes or not np.isfinite(array).all():
        raise MedvarError(
            f"{name} must hold finite {np.dtype(dtype)} numbers of {axes} axes, not {array.dtype} {array.shape}."
        )
    return np.asarray(array)
