"""Reads and checks a bundle, the folder of an exported model, which `medvar_export` writes.

``bundle.json`` lists every file with its sha256. A file is loaded only if its hash agrees. Nothing in a bundle can run
code: it contains only ONNX graphs, arrays, text and JSON.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvar_engine.conditions import FACTORS, Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import Structures, from_dicts
from medvar_engine.request import Sampling
from medvar_engine.storage import is_irregular, sha256_of
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json
from medvar_engine.value_range import Display

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"
CODEBOOK = "codebook.npy"
GATE_ENCODER = "gate_encoder.onnx"  # belongs to training indexes of an earlier version; not used
PREVIEW = "preview.onnx"  # light decoder for previews; finished images come from the full decoder
ENCODE = "encode.onnx"
STEP = "step.onnx"
GUIDE = "guide.onnx"  # a weaker transformer, for guidance; in some bundles
MAX_MANIFEST_BYTES = 16 * 2**20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # never a path to another folder, on any system
_SHAPE = ("depth", "heads", "head_dim")
_MOST = 4096  # blocks, heads, or channels of a head; the largest model of VAR has 36, 36 and 64
_COUNTS = ("vocabulary", "latent_channels", "image_size", "image_channels")
_NO_PART_OF_THE_MODEL = (GATE_ENCODER, PREVIEW, "fine.onnx")  # the last one belongs to older bundles; not used
_SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True, slots=True)
class SliceType:
    """Statistics of one slice type in the training data."""

    condition: Condition
    slices: int  # training slices
    patients: int
    spacing_mm: float | None  # median in-plane spacing in mm per pixel; None if unknown
    low: float  # value of a pixel of -1, in `unit`
    high: float  # value of a pixel of +1, in `unit`
    unit: str  # "HU" or "arbitrary"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The checked content of ``bundle.json``."""

    path: Path
    name: str
    labels: LabelSpace
    schedule: ScaleSchedule
    vocabulary: int
    latent_channels: int
    feature_channels: int  # channels of scale features; in older bundles those of a latent
    image_size: int
    image_channels: int
    transformer: Mapping[str, int]  # depth, heads, head_dim: the shape of keys and values
    precision: str
    sampling: Sampling  # recommended defaults
    slice_types: tuple[SliceType, ...]
    licence: str
    attributions: tuple[str, ...]
    training_data: str  # statement about the training data and its patients
    parity: Mapping[str, float]  # largest differences from torch, measured by the export
    sha256: Mapping[str, str]  # file name → hash
    weights: str = ""  # sha256 of the weights that were exported; empty in older bundles
    structures: Structures = ()  # structures of the generated masks; empty in a bundle without masks
    mask_scales: tuple[int, ...] = ()  # the scales that encode masks
    default_condition: Condition | None = None  # the condition used if none is requested; None for no condition
    guide: Mapping[str, int] | None = None  # like `transformer`, of the weaker one for guidance; None if there is none

    @property
    def bundle_id(self) -> str:
        """The digest of the bundle's networks: sha256 over the hashes of its graphs and of separate weight files."""
        graphs = sorted(
            (name, digest)
            for name, digest in self.sha256.items()
            if name.endswith((".onnx", ".onnx.data")) and name not in _NO_PART_OF_THE_MODEL
        )
        return sha256_of(json.dumps(graphs))

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises `MedvarError` if it is missing or its hash is not that of the manifest."""
        path = self.path / name
        try:
            if is_irregular(path):
                raise MedvarError(f"{path} is not a regular file. {_AGAIN}")
            content = path.read_bytes()
        except OSError as error:
            raise MedvarError(f"The bundle {self.path} lacks {name}: {error.strerror}. {_AGAIN}") from error
        if sha256_of(content) != self.sha256.get(name):
            raise MedvarError(f"{path} is not the file that bundle.json lists: its sha256 differs. {_AGAIN}")
        return content

    def verify(self) -> None:
        """Read and check every file. Raises `MedvarError` when one is missing or damaged."""
        for name in self.sha256:
            self.read(name)

    @property
    def card(self) -> str:
        """The model card, in Markdown."""
        try:
            return self.read(CARD).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MedvarError(f"{self.path / CARD} is not text ({error}). {_AGAIN}") from error

    def codebook(self) -> FloatArray | None:
        """Read the code of every token: ``(V, C)``, or ``(K, V, C)`` if every scale has its own codebook.

        None for an older bundle without a codebook. Raises `MedvarError` if the file is damaged.
        """
        if CODEBOOK not in self.sha256:
            return None
        one, path, content = (self.vocabulary, self.latent_channels), self.path / CODEBOOK, self.read(CODEBOOK)
        own = (len(self.schedule), *one)
        try:
            codes = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # parsing the header as a Python literal can fail with many exceptions
            raise MedvarError(f"{path} is not a numpy array, or is incomplete: {error}. {_AGAIN}") from error
        if codes.shape not in (one, own) or codes.dtype not in (np.float32, np.float16) or not np.isfinite(codes).all():
            raise MedvarError(
                f"{path} must hold finite float32 or float16 numbers {one} or {own}, not {codes.dtype} {codes.shape}."
            )
        return codes.astype(np.float32)

    def fitting(self, condition: Condition) -> tuple[SliceType, ...]:
        """The slice types of the training data that match ``condition``, the most frequent first."""
        asked = condition.to_dict()
        fits = [
            c
            for c in self.slice_types
            if all(asked.get(name, own) == own for name, own in c.condition.to_dict().items())
        ]
        return tuple(sorted(fits, key=lambda slice_type: -slice_type.slices))

    def slice_type(self, condition: Condition) -> SliceType | None:
        """The first of `fitting`; None when the training data have no such slice."""
        return next(iter(self.fitting(condition)), None)

    def display(self, condition: Condition) -> Display:
        """The meaning of pixels under ``condition``; arbitrary units if the matching slice types have different units.

        Without a modality, for example, an image may be CT or MR, so its values cannot be given in HU.
        """
        slice_types = self.fitting(condition)
        spacing = slice_types[0].spacing_mm if slice_types else None
        ranges = {(slice_type.low, slice_type.high, slice_type.unit) for slice_type in slice_types}
        return Display(*ranges.pop(), spacing) if len(ranges) == 1 else Display(spacing_mm=spacing)


_AGAIN = "Get the bundle from its source again, or export it again with `medvar export`."


def shipped_bundles() -> dict[str, Path]:
    """The folders of the bundles that ship with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(_SHIPPED.glob(f"*/{MANIFEST}"))}


def find_bundle(name: str | Path | None = None) -> Path:
    """The folder of a bundle, from a path or a shipped name; None is the first shipped one.

    Raises `MedvarError` if there is no such bundle, or if the name may mean a shipped bundle as well as a folder.
    """
    shipped = shipped_bundles()
    if name is None:
        if not shipped:
            raise MedvarError(
                "This installation contains no bundle. Give the folder of a bundle that `medvar export` wrote."
            )
        return next(iter(shipped.values()))
    try:
        path = Path(name).expanduser()
        if path.name == MANIFEST:
            path = path.parent
        there = (path / MANIFEST).is_file()
        named = shipped.get(str(name))
        ambiguous = named is not None and there and not path.samefile(named)
    except (OSError, RuntimeError) as error:  # unknown home folder, no permission, or a name that is too long
        raise MedvarError(f"Cannot look for a bundle at {name}: {error}.") from error
    if ambiguous:
        raise MedvarError(
            f"{name} is the name of a shipped bundle and of a folder here. Write {path.absolute()} for the folder. To "
            "use the shipped bundle, rename the folder or work elsewhere."
        )
    if named is not None:
        return named
    if not there:
        raise MedvarError(
            f"{path} is not a bundle: it has no {MANIFEST}. A bundle is a folder that `medvar export` wrote. "
            f"Shipped bundles: {', '.join(shipped) or 'none'}."
        )
    return path


def open_bundle(name: str | Path | None = None) -> Bundle:
    """Open the bundle in a folder, or a shipped bundle by name; None is the first shipped one.

    Raises `MedvarError` for the reasons of `find_bundle`, and when ``bundle.json`` is damaged. Other files are checked
    when they are read.

    >>> open_bundle("demo").image_size
    128
    """
    return read_bundle(find_bundle(name))


def read_bundle(path: Path) -> Bundle:
    """Read and check ``bundle.json``; other files are checked when they are read.

    Raises `MedvarError` if it is invalid.
    """
    manifest = path / MANIFEST
    values = plain_json.read_object(manifest, "a manifest", _AGAIN, most=MAX_MANIFEST_BYTES)
    try:
        version = values["schema_version"]
        if version != SCHEMA_VERSION:
            raise MedvarError(f"it has format {version}; this version reads {SCHEMA_VERSION}. Update medvar.")
        bundle = _bundle(path, values)
        if values["digest"] != manifest_digest(values):
            raise MedvarError(f"it was changed after it was written: its digest differs. {_AGAIN}")
        return bundle
    except MedvarError as error:
        raise MedvarError(f"{manifest} cannot be used: {error}") from error
    except KeyError as error:
        raise MedvarError(f"{manifest} lacks the field {error}. {_AGAIN}") from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise MedvarError(f"{manifest} has an invalid field: {error}. {_AGAIN}") from error


def manifest_digest(values: Mapping[str, Any]) -> str:
    """The ``digest`` of a manifest: sha256 of all other fields as JSON with sorted keys and without spaces."""
    others = {name: value for name, value in values.items() if name != "digest"}
    return sha256_of(json.dumps(others, sort_keys=True, separators=(",", ":")))


def _bundle(path: Path, values: Mapping[str, Any]) -> Bundle:
    for name in values["sha256"]:
        if not _FILE_NAME.fullmatch(name):
            raise MedvarError(f"it lists the file {name!r}, which could be outside the bundle; do not use it.")
    model = values["model"]
    for name in (*_COUNTS, *(name for name in ("feature_channels",) if name in model)):
        if int(model[name]) < 1:
            raise ValueError(f"{name} is {model[name]}")
    return Bundle(
        path=path,
        name=str(values["name"]),
        labels=LabelSpace.from_dict(values["labels"]),
        schedule=ScaleSchedule(tuple(values["schedule"])),
        vocabulary=int(model["vocabulary"]),
        latent_channels=int(model["latent_channels"]),
        feature_channels=int(model.get("feature_channels", model["latent_channels"])),
        image_size=int(model["image_size"]),
        image_channels=int(model["image_channels"]),
        transformer=_shape(model),
        precision=str(values["precision"]),
        sampling=_sampling(values["sampling"]),
        slice_types=tuple(_slice_type(slice_type) for slice_type in values["cells"]),
        licence=str(values["licence"]),
        attributions=tuple(map(str, values["attributions"])),
        training_data=str(values["training_data"]),
        parity={str(name): float(value) for name, value in values["parity"].items()},
        sha256={str(name): str(value) for name, value in values["sha256"].items()},
        weights=str(values.get("weights", "")),
        default_condition=_default_condition(values),
        guide=_guide(values),
        **_masks(values),
    )


def _guide(values: Mapping[str, Any]) -> Mapping[str, int] | None:
    """The shape of the guide's keys and values, if the bundle has a guide."""
    if (guide := values.get("guide")) is None:
        return None
    if GUIDE not in values["sha256"]:
        raise ValueError(f"a guide needs the file {GUIDE}")
    return _shape(guide)


def _shape(values: Mapping[str, Any]) -> Mapping[str, int]:
    """The shape of the keys and values of a transformer."""
    shape = {name: int(values[name]) for name in _SHAPE}
    if not all(1 <= count <= _MOST for count in shape.values()):
        raise ValueError(f"{shape} must be from 1 to {_MOST} each")
    return shape


def _default_condition(values: Mapping[str, Any]) -> Condition | None:
    if (given := values.get("default_condition")) is None:
        return None
    condition = Condition.from_dict({name: value for name, value in given.items() if name in FACTORS})
    LabelSpace.from_dict(values["labels"]).encode(condition)
    return condition


def _masks(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields about masks in the manifest of a bundle with masks."""
    if (masks := values.get("masks")) is None:
        return {}
    structures, scales = from_dicts(masks["structures"]), tuple(int(scale) for scale in masks["scales"])
    if not structures or not scales or not set(scales) < set(range(len(values["schedule"]))):
        raise ValueError(f"masks of {len(structures)} structures at the scales {scales}")
    return {"structures": structures, "mask_scales": scales}


def _sampling(values: Mapping[str, Any]) -> Sampling:
    """The sampling defaults, without fields of earlier versions."""
    return Sampling.from_dict({name: value for name, value in values.items() if name != "skip_settled"})


def slice_type_to_dict(slice_type: SliceType) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "condition": slice_type.condition.to_dict(),
        "slices": slice_type.slices,
        "patients": slice_type.patients,
        "spacing_mm": slice_type.spacing_mm,
        "low": slice_type.low,
        "high": slice_type.high,
        "unit": slice_type.unit,
    }


def _slice_type(values: Mapping[str, Any]) -> SliceType:
    condition = Condition.from_dict({n: v for n, v in values["condition"].items() if n in FACTORS})
    spacing = values["spacing_mm"]
    return SliceType(
        condition,
        int(values["slices"]),
        int(values["patients"]),
        None if spacing is None else float(spacing),
        float(values["low"]),
        float(values["high"]),
        str(values["unit"]),
    )
