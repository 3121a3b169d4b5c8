"""Options of a resample, the edit that they describe, and whether it fits an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Outside, Resample
from medvar_engine.generate.inversion import Inversion
from medvar_engine.request import Sampling
from medvar_engine.tokens.pyramid import TokenPyramid
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import BoolArray


class ResampleOptions(TypedDict, total=False):
    """How finer scales are drawn again. Missing options, and None, are as in the parent."""

    condition: Condition | None  # condition of the drawn scales
    sampling: Sampling | None  # sampling of the drawn scales
    mask: BoolArray | None  # (H, W): tokens outside it stay; the decoder may still change pixels near it
    keep: Sequence[int]  # locked scales: their token maps stay
    exact_outside: bool  # pixels outside the mask stay too: the new image is visible only inside it
    soft_edge: float  # width in pixels over which the new image then fades in, inside the mask
    inversion: Inversion | None  # noise from `Generator.invert`, instead of the noise of the seed


def resample_edit(schedule: ScaleSchedule, from_scale: int, options: ResampleOptions) -> Resample:
    """The edit that describes drawing scales ``from_scale…`` with ``options``."""
    mask, inversion = options.get("mask"), options.get("inversion")
    keep = {schedule.check_scale(k) for k in options.get("keep", ())}
    exact, soft_edge = options.get("exact_outside", False), options.get("soft_edge", 0.0)
    if soft_edge and not exact:
        raise MedvarError(
            "A soft edge blends the new image with the old one, which needs exact_outside. Set exact_outside too."
        )
    return Resample(
        schedule.check_scale(from_scale),
        None if mask is None else np.array(mask, dtype=np.bool_),
        tuple(sorted(k for k in keep if k >= from_scale)),  # coarser ones stay anyway
        Outside(soft_edge) if exact else None,
        None if inversion is None else inversion.request,
    )


def check_resample(parent: TokenPyramid, edit: Resample, size: int) -> None:
    """Raises `MedvarError` if ``edit`` does not fit ``parent``, an image of ``size`` × ``size`` pixels."""
    k = parent.schedule.check_scale(edit.from_scale)
    if k > parent.depth:
        raise MedvarError(f"Scale {k} cannot be resampled yet: this image has {parent.depth} scales.")
    _check_locked(parent, edit.keep, k)
    if edit.mask is None:
        if edit.outside is not None:
            raise MedvarError("exact_outside needs a mask. Paint where the image may change.")
        return
    if edit.mask.shape != (size, size):
        raise MedvarError(f"The mask must cover the image, {size}×{size} pixels, but is {edit.mask.shape}.")
    if not parent.complete:
        raise MedvarError("Resampling inside a mask needs a finished image, because the rest of the image is kept.")
    if not edit.mask.any():
        raise MedvarError("The mask is empty: paint where the image may change.")


def _check_locked(parent: TokenPyramid, keep: Sequence[int], from_scale: int) -> None:
    for k in keep:
        if parent.schedule.check_scale(k) >= parent.depth:
            raise MedvarError(f"Scale {k} cannot be kept: this image has {parent.depth} scales so far. Unlock it.")
    if all(k in keep for k in range(from_scale, len(parent.schedule))):
        raise MedvarError(
            f"All scales from {from_scale} on are locked, so there is nothing to draw. Unlock one, or start at a "
            "coarser scale."
        )
