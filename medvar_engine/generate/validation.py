"""Checks of arguments. Each raises `MedvarError` that says what was wrong and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvar_engine.backends.base import BackendInfo
from medvar_engine.backends.check_outputs import check_tokens
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray
from medvar_engine.request import Request
from medvar_engine.types import FloatArray


def check_model(info: BackendInfo, trace: Trace) -> None:
    """The trace belongs to this model, by the name of its graphs or weights: other tokens have no meaning here."""
    if trace.pyramid.schedule != info.schedule:
        raise MedvarError(
            f"This image has scales of sides {trace.pyramid.schedule}, but the model has {info.schedule}; "
            "open the bundle that made it."
        )
    if trace.bundle_id not in (info.bundle_id, info.weights or info.bundle_id):
        raise MedvarError(
            f"This image was made by another model (sha256 {trace.bundle_id[:12]}…, not {info.bundle_id[:12]}…); "
            "open the bundle that made it."
        )
    check_tokens(info, trace.pyramid.sequence)


def check_requests(info: BackendInfo, requests: Sequence[Request]) -> None:
    """There is at least one request, the model knows all conditions, and this version can draw them."""
    if not requests:
        raise MedvarError("There is nothing to generate: the list of requests is empty.")
    for request in requests:
        info.labels.encode(request.condition)
        check_drawn(request)


def check_drawn(request: Request) -> None:
    """The image does not have tokens that an earlier version skipped."""
    if request.skipped:
        raise MedvarError(
            f"This image was drawn with skip_settled {request.skipped:g}, which left out some tokens of the finest "
            "scales. This version draws every token: it shows the image, but cannot make it again or finish it. "
            "Generate another one, or resample this one."
        )


def check_logits(logits: FloatArray) -> FloatArray:
    """``logits`` themselves, if they are finite. From NaN, tokens would be drawn that mean nothing."""
    if not np.isfinite(logits).all():
        raise MedvarError(
            "The model gave NaN or infinity in place of logits: its weights are damaged, or its precision is too low "
            "for this device. Check the bundle with `medvar info`, or export the model again in float32."
        )
    return logits


def check_masks(info: BackendInfo, masks: MaskArray | None, count: int) -> None:
    """Masks to encode with images: ``(count, H, W)``, each showing some structure; none for a model without masks."""
    if not info.structures:
        if masks is not None:
            raise MedvarError("This model knows no masks: it makes images alone. Leave the mask out, or open another.")
        return
    expected = (count, info.image_size, info.image_size)
    if masks is None or masks.shape != expected:
        found = "there is none" if masks is None else f"got {masks.shape}"
        raise MedvarError(f"This model takes masks of shape {expected}, but {found}.")
    if masks.max(initial=0) > len(info.structures):
        names = ", ".join(f"{value} {one.name}" for value, one in enumerate(info.structures, 1))
        raise MedvarError(f"A mask has the value {int(masks.max())}, which the model does not know; it knows {names}.")


def check_images(info: BackendInfo, images: FloatArray, count: int) -> None:
    """Images to encode: ``(count, H, W)``, or ``(count, H, W, 3)`` for a colour model, finite and in [-1, 1]."""
    expected = (count, info.image_size, info.image_size) + ((3,) if info.image_channels == 3 else ())
    if images.shape != expected:
        raise MedvarError(f"This model encodes images of shape {expected}, but got {images.shape}.")
    if not np.isfinite(images).all() or np.abs(images).max(initial=0) > 1 + 1e-3:
        raise MedvarError("Images to encode must be finite and within [-1, 1]; harmonise them first.")
