"""Diversity of the images of one label: MS-SSIM of random pairs (Wang 2003)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.bootstrap import Estimate, group_weights
from medvar_engine.types import FloatArray

Doubles = npt.NDArray[np.float64]

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the paper, fine to coarse
_RADIUS, _SIGMA = 5, 1.5


def pair_similarity(
    images: FloatArray, patients: Sequence[str] | None = None, *, pairs: int = 200, seed: int = 0
) -> Estimate:
    """Mean MS-SSIM of random pairs of images ``(N, H, W)`` in [-1, 1]; 1 for equal images.

    With ``patients``, both images of a pair come from different patients. Compare the value with that of real slices.
    The interval is over patients, or else images; a pair is counted as often as both are drawn. Raises `MedvarError`
    when there is no pair, or a value is not finite.
    """
    if not np.isfinite(images).all():
        raise MedvarError("Some images contain values that are not finite, so they cannot be compared.")
    names = [str(i) for i in range(len(images))] if patients is None else list(patients)
    if len(set(names)) < 2:
        raise MedvarError("Diversity needs at least two images, of at least two patients if those are given.")
    rng = np.random.default_rng(seed)
    drawn: list[tuple[int, int]] = []
    while len(drawn) < pairs:
        one, other = rng.integers(len(images), size=2)
        if names[one] != names[other]:
            drawn.append((int(one), int(other)))
    found = np.array([ms_ssim(images[one], images[other]) for one, other in drawn])
    weights = group_weights(names, seed=seed)
    ones, others = np.array(drawn).T
    times = weights[:, ones] * weights[:, others]
    times = times[times.any(axis=1)]  # with few patients, a draw may contain no pair
    low, high = np.quantile(times @ found / times.sum(axis=1), (0.025, 0.975)) if len(times) else (None, None)
    return Estimate(float(found.mean()), low, high)


def ms_ssim(a: FloatArray, b: FloatArray) -> float:
    """Multi-scale structural similarity of two images ``(H, W)`` in [-1, 1].

    It uses five scales, or as many as the window of 11 pixels fits into, with weights scaled to the same sum. Negative
    terms count as 0. Raises `MedvarError` for images that are too small.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    scales = sum(min(x.shape) // 2**i > 2 * _RADIUS for i in range(len(_WEIGHTS)))
    if not scales:
        raise MedvarError(f"MS-SSIM needs images of more than {2 * _RADIUS} pixels, not {x.shape}.")
    weights = np.array(_WEIGHTS[:scales]) * (sum(_WEIGHTS) / sum(_WEIGHTS[:scales]))
    result = 1.0
    for i, weight in enumerate(weights):
        luminance, structure = _ssim_parts(x, y)
        value = float((luminance * structure).mean() if i + 1 == scales else structure.mean())
        result *= max(value, 0.0) ** float(weight)
        x, y = _halved(x), _halved(y)
    return result


def _ssim_parts(x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """The luminance term, and the contrast-structure term, where the window lies within the image; the range is 2."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mx, my = _blurred(x), _blurred(y)
    xx, yy, xy = _blurred(x * x) - mx * mx, _blurred(y * y) - my * my, _blurred(x * y) - mx * my
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * xy + c2) / (xx + yy + c2)


def _blurred(x: Doubles) -> Doubles:
    whole: Doubles = ndimage.gaussian_filter(x, _SIGMA, radius=_RADIUS)
    return whole[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _halved(x: Doubles) -> Doubles:
    """Means of blocks of 2×2 pixels; an odd last row or column is left out."""
    even = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    halved: Doubles = even.reshape(even.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
    return halved
