"""The training index that a bundle may carry, so that whoever generates can ask the `Gate`.

Three files: ``gate.json`` says threshold, encoder and whose each slice is; ``gate_index.npy`` holds the embeddings,
float16, a row for each training slice, in one window after another; ``gate_encoder.onnx`` makes them. There are no
images and no names in it: patients go by pseudonyms made with a secret key, and rows are ordered by those. Embeddings
still say something of the slices, as a description does; who may have the bundle may have them.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import secrets
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medvar_engine.bundle.read import GATE_ENCODER, Bundle
from medvar_engine.encoders.onnx_encoder import OnnxEncoder
from medvar_engine.encoders.preprocessing import Preprocessing
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.gate import Gate
from medvar_engine.memorisation.neighbours import unit
from medvar_engine.storage import sha256_of
from medvar_engine.untrusted import plain_json

SCHEMA_VERSION = 1
GATE = "gate.json"
INDEX = "gate_index.npy"
ENCODER = GATE_ENCODER
FILES = (GATE, INDEX, ENCODER)
MAX_ENCODER_BYTES = 64 * 2**20
_AGAIN = "Take the bundle from its source again, or export it anew."


def pack_index(gate: Gate, encoder: bytes, *, key: bytes | None = None) -> dict[str, bytes]:
    """The content of the three `FILES` by name, ready to be written into a bundle.

    Args:
        gate: made with an `OnnxEncoder`.
        encoder: the file of that encoder.
        key: makes the pseudonyms. Who keeps it can find out later whose a flagged slice is, see `pseudonym`; by default
            it is drawn at random and forgotten.
    """
    if not isinstance(gate.encoder, OnnxEncoder) or sha256_of(encoder) != gate.encoder.sha256:
        raise MedvarError(
            "The training index carries its encoder as ONNX, which must be the one the gate was made with."
        )
    if len(encoder) > MAX_ENCODER_BYTES:
        raise MedvarError(f"The encoder takes {len(encoder) / 2**20:.0f} MB; a bundle carries small ones only.")
    if key is None:
        key = secrets.token_bytes(32)
    names = np.array([pseudonym(patient, key) for patient in gate.patients])
    order = np.argsort(names, kind="stable")
    content = io.BytesIO()
    shown = gate.embeddings.reshape(-1, len(names), gate.encoder.dimension)  # once in each window
    embeddings = unit(shown[:, order].reshape(gate.embeddings.shape)).astype("<f2")
    np.lib.format.write_array(content, embeddings, version=(1, 0), allow_pickle=False)
    files = {INDEX: content.getvalue(), ENCODER: encoder}
    patients, slices = np.unique(names, return_counts=True)
    values = {
        "schema_version": SCHEMA_VERSION,
        "threshold": gate.threshold,
        "encoder": gate.encoder.describe(),
        "sha256": {name: sha256_of(data) for name, data in files.items()},
        "patients": dict(zip(patients.tolist(), slices.tolist(), strict=True)),
    }
    return {**files, GATE: json.dumps(values, indent=1).encode()}


def pseudonym(patient: str, key: bytes) -> str:
    """What a patient is called in an index that was made with ``key``."""
    return hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:16]


def known_slices(bundle: Bundle) -> int | None:
    """Of how many training slices copies are known; None without an index. Needs no encoder to run."""
    return sum(_about(bundle.read).slices.values()) if GATE in bundle.sha256 else None


def read_index(read: Callable[[str], bytes], *, threads: int | None = None) -> Gate:
    """The gate of a bundle; ``read`` gives the bytes of a file by name, as `Bundle.read` does.

    Raises `MedvarError` when a file is missing, damaged, or not the one that ``gate.json`` names.
    """
    about = _about(read)
    embeddings = _embeddings(_checked(read, INDEX, about.sha256))
    total = sum(about.slices.values())
    if total > len(embeddings) or len(embeddings) % total:
        raise MedvarError(f"{GATE} does not say of each of the {len(embeddings)} rows of {INDEX} whose it is. {_AGAIN}")
    patients = np.repeat(list(about.slices), list(about.slices.values())).tolist()
    content = _checked(read, ENCODER, about.sha256)
    encoder = OnnxEncoder(content, about.preprocessing, name=about.encoder, origin=ENCODER, threads=threads)
    return Gate(encoder, embeddings, patients, about.threshold)


class _About(NamedTuple):
    """What ``gate.json`` says."""

    encoder: str  # name
    preprocessing: Preprocessing
    threshold: float
    slices: dict[str, int]  # patient, in the order of the rows → training slices
    sha256: dict[str, str]  # of the two files beside it


def _about(read: Callable[[str], bytes]) -> _About:
    try:
        values = plain_json.loads(read(GATE))
        version = values["schema_version"]
        if version != SCHEMA_VERSION:
            raise MedvarError(f"{GATE} has format {version}; this version reads {SCHEMA_VERSION}. Update medvar.")
        slices = {str(name): int(count) for name, count in sorted(values["patients"].items())}
        about = _About(
            str(values["encoder"]["name"]),
            Preprocessing.from_dict(values["encoder"]["preprocessing"]),
            float(values["threshold"]),
            slices,
            {file: str(values["sha256"][file]) for file in (INDEX, ENCODER)},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise MedvarError(f"{GATE} is damaged ({type(error).__name__}: {error}). {_AGAIN}") from error
    if min(slices.values(), default=0) < 1:
        raise MedvarError(f"{GATE} does not say whose slices are in {INDEX}. {_AGAIN}")
    return about


def _checked(read: Callable[[str], bytes], name: str, hashes: dict[str, str]) -> bytes:
    content = read(name)
    if sha256_of(content) != hashes[name]:
        raise MedvarError(f"{name} is not the file that {GATE} names: its sha256 differs. {_AGAIN}")
    return content


def _embeddings(content: bytes) -> npt.NDArray[np.float16]:
    try:
        embeddings = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # the header is parsed as a Python literal, which fails in many ways
        raise MedvarError(f"{INDEX} is not an array of numpy, or cut short: {error}. {_AGAIN}") from error
    if embeddings.dtype != np.float16 or embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise MedvarError(
            f"{INDEX} must hold finite float16 numbers (N, D), not {embeddings.dtype} {embeddings.shape}."
        )
    return embeddings
