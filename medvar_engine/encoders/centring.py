"""Slices moved so that what is bright lies in the middle: a copy that was shifted comes back to where it was."""

from __future__ import annotations

import numpy as np

from medvar_engine.types import FloatArray


def centred(images: FloatArray) -> FloatArray:
    """``(N, H, W)`` → the same by whole pixels, each with the centroid of what is brighter than its mean in the middle.

    The darkest value comes in at the sides. Brighter than the mean, because that is the same pixels in another window.
    """
    out = np.empty_like(images)
    for image, moved in zip(images, out, strict=True):
        weights = np.maximum(0, image - image.mean(), dtype=np.float64)
        down, right = (_offset(weights.sum(axis=axis)) for axis in (1, 0))
        height, width = image.shape
        moved[:] = image.min()
        moved[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = image[
            max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)
        ]
    return out


def _offset(profile: np.ndarray) -> int:
    """From the middle of an axis to the centroid, whole pixels; 0 where nothing is brighter than the mean."""
    total = profile.sum()
    if not total:
        return 0
    return round(float((profile * (np.arange(len(profile)) - (len(profile) - 1) / 2)).sum() / total))
