"""`OnnxEncoder`: an encoder from one ONNX file, run by ONNX Runtime. No other file is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from medvar_engine.encoders.preprocessing import Preprocessing
from medvar_engine.errors import MedvarError
from medvar_engine.storage import sha256_of
from medvar_engine.types import FloatArray
from medvar_engine.untrusted.memory_limit import open_session, run_bytes, run_options
from medvar_engine.untrusted.time_limit import load_seconds, run_seconds, within

MAX_BYTES = 2**31 - 1  # the limit of protobuf; larger models have external data, which are never read
_BLOCK = 16  # slices that pass through the network together; constant, so that features are reproducible
_PIXEL_BYTES = 1024  # memory per pixel of a slice; VGG-16, whose first layers are wide, needs half of it
_PROVIDERS = ["CPUExecutionProvider"]


class OnnxEncoder:
    """A graph with one float32 input ``(N, C, size, size)`` and features ``(N, D)``, or ``(N, D, 1, 1)``, first.

    Args:
        content: the content of the file. It is loaded from memory, so a graph that refers to other files is refused.
        preprocessing: how images are prepared.
        name: the name in reports.
        origin: the origin of the file, for messages.
        threads: number of threads of ONNX Runtime; None for its default.
    """

    def __init__(
        self,
        content: bytes,
        preprocessing: Preprocessing,
        *,
        name: str,
        origin: str = "the encoder",
        threads: int | None = None,
    ) -> None:
        check_size(len(content), origin)
        self.name = name
        self.sha256 = sha256_of(content)
        self.preprocessing = preprocessing
        self._origin, self._bytes = origin, len(content)
        places = _BLOCK * preprocessing.size**2
        self._session = _open_session(content, origin, threads, run_bytes(len(content), places, _PIXEL_BYTES))
        self._input = self._session.get_inputs()[0].name
        blank = np.zeros((2, preprocessing.size, preprocessing.size), dtype=np.float32)
        self.dimension = int(self._encode(blank).shape[1])

    def encode(self, images: FloatArray) -> FloatArray:
        """See `Encoder`."""
        parts = [self._encode(images[first : first + _BLOCK]) for first in range(0, len(images), _BLOCK)]
        if odd := [part.shape[1] for part in parts if part.shape[1] != self.dimension]:
            raise MedvarError(
                f"{self._origin} returns {odd[0]} features for some images, and {self.dimension} for others."
            )
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), dtype=np.float32)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "dimension": self.dimension,
            "preprocessing": self.preprocessing.to_dict(),
        }

    def _encode(self, images: FloatArray) -> FloatArray:
        prepared = self.preprocessing(images)
        options = run_options(_runtime(), self._session)

        def stop() -> None:
            options.terminate = True

        try:
            seconds = run_seconds(self._bytes, prepared.size)
            run = self._session.run
            features = np.array(within(seconds, lambda: run(None, {self._input: prepared}, options)[0], stop))
        except TimeoutError as error:
            raise MedvarError(
                f"{self._origin} was stopped: {error}, much longer than a network of its size needs. It may be "
                "built to run forever. Use only encoders from sources that you trust."
            ) from error
        except Exception as error:  # onnxruntime has no exception type of its own
            raise MedvarError(
                f"{self._origin} does not accept batches of images with {prepared.shape[1]} channels and "
                f"{prepared.shape[2]}×{prepared.shape[3]} pixels, as its preprocessing requires: {error}"
            ) from error
        if features.ndim == 4 and features.shape[2:] == (1, 1):
            features = features[:, :, 0, 0]
        if features.dtype.kind not in "fiu":
            raise MedvarError(f"{self._origin} returns {features.dtype}, but its first output must be numbers.")
        if features.ndim != 2 or len(features) != len(images) or not features.shape[1]:
            raise MedvarError(
                f"{self._origin} returns {features.shape} for {len(images)} images, but its first output must have one "
                f"row of features per image, ({len(images)}, D). Export it with its global pooling."
            )
        features = np.asarray(features, dtype=np.float32)
        if not np.isfinite(features).all():
            raise MedvarError(f"{self._origin} returns features that are not finite. Its preprocessing may be wrong.")
        return features


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MedvarError(
            "ONNX encoders need ONNX Runtime, which is not installed: `pip install 'napari-medvar[cpu]'`."
        ) from error
    return onnxruntime


def check_size(size: int, origin: str) -> None:
    """Raise `MedvarError` for more bytes than an ONNX file can have."""
    if size > MAX_BYTES:
        raise MedvarError(f"{origin} is larger than 2 GB, the limit of an ONNX file.")


def _open_session(content: bytes, origin: str, threads: int | None, most: int) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = within(
            load_seconds(len(content)),
            lambda: open_session(runtime, content, options, _PROVIDERS, most, weights=0, most_on_gpu=0),
        )
    except Exception as error:
        raise MedvarError(
            f"{origin} cannot be used as an ONNX file: {error}. It must be one self-contained file."
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        found = ", ".join(f"{one.name} {one.type}" for one in inputs)
        raise MedvarError(f"{origin} has the inputs {found}, but an encoder must have one float32 image as input.")
    return session
