"""`Encoder`: maps slices to features, which metrics compare; `open_encoder` opens one by name or file.

A single encoder can mislead, because it misses some differences, so every report uses two or more. `DescriptorEncoder`
needs neither a download nor training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from medvar_engine.encoders.descriptor import DescriptorEncoder
from medvar_engine.encoders.known_encoders import KNOWN_ENCODERS, KnownEncoder
from medvar_engine.encoders.onnx_encoder import OnnxEncoder, check_size
from medvar_engine.encoders.preprocessing import Preprocessing, read_preprocessing
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray


class Encoder(Protocol):
    """Maps slices to features. Each row depends on its own slice only."""

    @property
    def name(self) -> str:
        """The name in reports."""

    @property
    def sha256(self) -> str:
        """A digest of the weights, or of the method and its settings; it changes when any feature may change."""

    @property
    def dimension(self) -> int:
        """D, the number of features."""

    def encode(self, images: FloatArray) -> FloatArray:
        """``(N, H, W)`` float32 in [-1, 1] → ``(N, D)`` float32."""

    def describe(self) -> dict[str, Any]:
        """The description for reports, as plain values: name, sha256, dimension, preprocessing."""


def open_encoder(text: str, preprocessing: Preprocessing | None = None) -> Encoder:
    """Open an encoder.

    Args:
        text: ``descriptor``; or ``FILE``, an ONNX file or the safetensors file of a SimCLR encoder of medvar; or
        ``NAME=FILE``, in which NAME is one of `KNOWN_ENCODERS`, with known preprocessing.
        preprocessing: how to prepare images for an ONNX file. With None, that of the known encoder is used, or a JSON
        file of the same name beside the ONNX file (``encoder.onnx`` and ``encoder.json``).

    Raises:
        MedvarError: when the file is missing or not an encoder, or its preprocessing is unknown. For a known encoder
        without its file, the message says where to get it and how to give it.
    """
    if text == DescriptorEncoder.name:
        return DescriptorEncoder()
    if text in KNOWN_ENCODERS:
        raise MedvarError(KNOWN_ENCODERS[text].instructions())
    name, known, path = _parse(text)
    if not path.is_file():
        raise MedvarError(
            f"There is no encoder file {path}. An encoder is {DescriptorEncoder.name}, an ONNX or safetensors file, or "
            f"NAME=FILE with one of the names {', '.join(KNOWN_ENCODERS)}."
        )
    if path.suffix.lower() == ".safetensors":
        return _open_simclr(path)
    if path.suffix.lower() != ".onnx":
        raise MedvarError(
            f"{path} is neither .onnx nor .safetensors. Export other formats to ONNX first: they can run code."
        )
    check_size(path.stat().st_size, str(path))  # before it is read
    return OnnxEncoder(path.read_bytes(), preprocessing or _preprocessing(known, path), name=name, origin=str(path))


def _parse(text: str) -> tuple[str, KnownEncoder | None, Path]:
    name, equals, file = text.partition("=")
    if equals and name in KNOWN_ENCODERS:
        return name, KNOWN_ENCODERS[name], Path(file).expanduser()
    path = Path(text).expanduser()
    if equals and not path.is_file():
        raise MedvarError(f"{name!r} is not a known encoder. Known encoders are {', '.join(KNOWN_ENCODERS)}.")
    return path.stem, None, path


def _preprocessing(known: KnownEncoder | None, path: Path) -> Preprocessing:
    if known is not None:
        return known.preprocessing
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise MedvarError(
            f"The preprocessing of {path} is unknown. Write {beside.name} beside it, such as "
            '{"size": 224, "kernel": "bilinear", "low": 0, "high": 1, "mean": [0.485, 0.456, 0.406], '
            '"std": [0.229, 0.224, 0.225]}, or name it as one of ' + ", ".join(KNOWN_ENCODERS) + "."
        )
    return read_preprocessing(beside)


def _open_simclr(path: Path) -> Encoder:
    try:
        from medvar_engine.encoders.simclr import SimCLREncoder
    except ImportError as error:
        raise MedvarError(
            f"{path} needs torch and safetensors, which are not installed: `pip install 'napari-medvar[train]'`, or "
            "give the encoder as ONNX."
        ) from error
    return SimCLREncoder.load(path)
