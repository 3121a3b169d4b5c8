"""Baseline images of known quality (real, blurred, repeated, noise), which every report shows for comparison."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from scipy import ndimage

from medvar_engine.encoders.image_source import Images, Indices
from medvar_engine.storage import sha256_of
from medvar_engine.types import FloatArray

JUDGED = "synthetic"
"""The name, in reports, of the images that are judged."""


class Baseline(StrEnum):
    """Images of known quality, the best first, with their names in reports and JSON."""

    REAL = "real, other people"
    BLURRED = "real, blurred"
    REPEATED = "four real images, repeated"
    NOISE = "noise"


BLUR = 2.0  # standard deviation in pixels
KEPT = 4  # different images of a collapsed model


class NoiseImages:
    """White noise with the mean and standard deviation of each slice of ``source``."""

    def __init__(self, source: Images, seed: int = 0) -> None:
        self._source, self._seed = source, seed
        self.digest = _name(source, f"noise {seed}")

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`."""
        images = self._source.batch(indices)
        noise = np.stack([np.random.default_rng((self._seed, int(i))).normal(size=images.shape[1:]) for i in indices])
        mean, spread = (f(images, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
        return np.asarray(np.clip(mean + spread * noise, -1, 1), dtype=np.float32)


class BlurredImages:
    """The slices of ``source`` blurred, like images of a model without detail."""

    def __init__(self, source: Images, sigma: float = BLUR) -> None:
        self._source, self._sigma = source, sigma
        self.digest = _name(source, f"blurred {sigma}")

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`."""
        return np.stack([ndimage.gaussian_filter(image, self._sigma) for image in self._source.batch(indices)])


class CollapsedImages:
    """As many images as ``source``, but only a few different ones, which simulates mode collapse."""

    def __init__(self, source: Images, kept: int = KEPT) -> None:
        self._source, self.kept = source, min(kept, len(source))
        self.digest = _name(source, f"collapsed {kept}")

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`."""
        spread = len(self._source) // self.kept
        return self._source.batch([int(i) % self.kept * spread for i in indices])


def baselines(held_out: Images) -> dict[Baseline, Images]:
    """The baselines made of slices of held-out patients, the best first."""
    return {
        Baseline.REAL: held_out,
        Baseline.BLURRED: BlurredImages(held_out),
        Baseline.REPEATED: CollapsedImages(held_out),
        Baseline.NOISE: NoiseImages(held_out),
    }


def _name(source: Images, what: str) -> str:
    return sha256_of(f"{source.digest} {what}")
