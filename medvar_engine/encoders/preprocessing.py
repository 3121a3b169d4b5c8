"""`Preprocessing`: how slices are prepared for an encoder. It affects every metric, so it is recorded in reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json

MAX_BYTES = 2**16
_MAX_SIZE = 4096
_KERNELS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Prepares slices in [-1, 1] for an encoder.

    An image is resized to ``size`` pixels per side with ``kernel`` (with antialiasing, as in Pillow), its values [-1,
    1] are mapped to [``low``, ``high``], it is repeated to as many channels as ``mean`` has numbers, and each channel
    is normalised by ``mean`` and ``std``.
    """

    size: int
    kernel: str = "bilinear"
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _MAX_SIZE:
            raise MedvarError(f"size, the side of the input in pixels, must be 1…{_MAX_SIZE}, but is {self.size}.")
        if self.kernel not in _KERNELS:
            raise MedvarError(f"kernel must be one of {', '.join(_KERNELS)}, but is {self.kernel!r}.")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise MedvarError(
                f"mean and std must have one number per channel, 1 or 3, but are {self.mean}, {self.std}."
            )
        if not np.isfinite([self.low, self.high, *self.mean, *self.std]).all() or not all(s > 0 for s in self.std):
            raise MedvarError("low, high, mean and std must be finite, and std above 0.")

    def __call__(self, images: FloatArray) -> FloatArray:
        """``(N, H, W)`` in [-1, 1] → ``(N, C, size, size)``. Raises `MedvarError` for other shapes and values."""
        check_slices(images)
        out = np.empty((len(images), len(self.mean), self.size, self.size), dtype=np.float32)
        scale, middle = (self.high - self.low) / 2, (self.high + self.low) / 2
        for image, channels in zip(images, out, strict=True):
            resized = resize(image, self.size, self.kernel) * np.float32(scale) + np.float32(middle)
            for channel, mean, std in zip(channels, self.mean, self.std, strict=True):
                channel[:] = (resized - np.float32(mean)) / np.float32(std)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises `MedvarError` for missing or unknown fields, or values of a wrong type."""
        known = {one.name for one in fields(cls)}
        try:
            if unknown := sorted(set(values) - known):
                raise MedvarError(f"Unknown field {unknown[0]!r}. The fields are {', '.join(sorted(known))}.")
            size = values["size"]
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"size must be a whole number, not {size!r}")
            return cls(
                size,
                kernel=str(values.get("kernel", "bilinear")),
                low=float(values.get("low", 0)),
                high=float(values.get("high", 1)),
                mean=tuple(map(float, values.get("mean", (0, 0, 0)))),
                std=tuple(map(float, values.get("std", (1, 1, 1)))),
            )
        except KeyError as error:
            raise MedvarError(f"The field {error} is missing.") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise MedvarError(f"A field has a wrong type ({error}).") from error


def read_preprocessing(path: Path) -> Preprocessing:
    """Read preprocessing from a JSON file such as ``{"size": 224, "mean": [0.5, 0.5, 0.5]}``."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MedvarError("it is too large")
        values = plain_json.read(path)
        if not isinstance(values, dict):
            raise MedvarError(f"it contains a {type(values).__name__}, but an object with the field size is expected")
        return Preprocessing.from_dict(values)
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
    except MedvarError as error:
        raise MedvarError(f"{path} is not a valid preprocessing of an encoder: {error}") from error
    except (ValueError, RecursionError) as error:
        raise MedvarError(f"{path} is not JSON ({error}).") from error


def check_slices(images: FloatArray) -> None:
    """Raises `MedvarError` unless slices are ``(N, H, W)``, finite, and within [-1, 1]."""
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise MedvarError(f"An encoder needs slices (N, height, width), but their shape is {images.shape}.")
    if not np.isfinite(images).all() or np.abs(images).max(initial=0) > 1 + 1e-3:
        raise MedvarError("Slices to encode must be finite and within [-1, 1]; harmonise them first.")


def resize(image: FloatArray, size: int, kernel: str) -> FloatArray:
    """Resize an image ``(H, W)`` to ``(size, size)``."""
    if image.shape == (size, size):
        return image
    pillow_image = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(pillow_image.resize((size, size), _KERNELS[kernel]), dtype=np.float32)
