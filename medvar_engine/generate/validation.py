"""Checks of arguments. Each raises a `MedvarError` that says what was wrong and what was expected."""

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
    """Check that the trace belongs to this model, by the digest of its graphs or weights."""
    if trace.pyramid.schedule != info.schedule:
        raise MedvarError(
            f"This image has scales of sides {trace.pyramid.schedule}, but the model has {info.schedule}. "
            "Open the bundle that made it."
        )
    if trace.bundle_id not in (info.bundle_id, info.weights or info.bundle_id):
        raise MedvarError(
            f"This image was made by another model (sha256 {trace.bundle_id[:12]}…, not {info.bundle_id[:12]}…). "
            "Open the bundle that made it."
        )
    check_tokens(info, trace.pyramid.sequence)


def check_requests(info: BackendInfo, requests: Sequence[Request]) -> None:
    """Check that there is a request, that the model knows all conditions, and that this version can draw them."""
    if not requests:
        raise MedvarError("There is nothing to generate: the list of requests is empty.")
    for request in requests:
        info.labels.encode(request.condition)
        check_drawn(info, request)


def check_drawn(info: BackendInfo, request: Request) -> None:
    """Check that this version can draw the image: earlier ones could skip tokens, and drew stacks in another way."""
    if request.skipped:
        raise MedvarError(
            f"This image was drawn with skip_settled {request.skipped:g}, which skipped some tokens of the finest "
            "scales. This version draws every token: it can show the image, but not make it again or finish it. "
            "Generate another image, or resample this one."
        )
    if (place := request.stack) is None:
        return
    if place.slice and not place.before:
        raise MedvarError(
            f"Slice {place.slice + 1} of a stack is drawn near the slice before it, but the tokens of that slice are "
            "not given. Stacks of earlier versions can be shown, but not made again."
        )
    if place.before:
        if len(place.before) != info.schedule.tokens:
            raise MedvarError(
                f"The slice before has {len(place.before)} tokens, but the model makes {info.schedule.tokens}. Open "
                "the bundle that made the stack."
            )
        check_tokens(info, np.array(place.before))


def check_logits(logits: FloatArray) -> FloatArray:
    """``logits`` themselves, if all are finite. Tokens drawn from NaN would be meaningless."""
    if not np.isfinite(logits).all():
        raise MedvarError(
            "The logits of the model contain NaN or infinity: its weights are damaged, or its precision is too low for "
            "this device. Check the bundle with `medvar info`, or export the model again in float32."
        )
    return logits


def check_masks(info: BackendInfo, masks: MaskArray | None, count: int) -> None:
    """Check masks to encode with images: ``(count, H, W)`` with known structures; None for a model without masks."""
    if not info.structures:
        if masks is not None:
            raise MedvarError("This model makes images without masks. Leave the mask out, or open a model with masks.")
        return
    expected = (count, info.image_size, info.image_size)
    if masks is None or masks.shape != expected:
        found = "none was given" if masks is None else f"got {masks.shape}"
        raise MedvarError(f"This model needs masks of shape {expected}, but {found}.")
    if masks.max(initial=0) > len(info.structures):
        names = ", ".join(f"{value} {one.name}" for value, one in enumerate(info.structures, 1))
        raise MedvarError(f"A mask has the value {int(masks.max())}, which the model does not know; it knows {names}.")


def check_images(info: BackendInfo, images: FloatArray, count: int) -> None:
    """Check images to encode: ``(count, H, W)``, or ``(count, H, W, 3)`` for a colour model, finite, in [-1, 1]."""
    expected = (count, info.image_size, info.image_size) + ((3,) if info.image_channels == 3 else ())
    if images.shape != expected:
        raise MedvarError(f"This model encodes images of shape {expected}, but got {images.shape}.")
    if not np.isfinite(images).all() or np.abs(images).max(initial=0) > 1 + 1e-3:
        raise MedvarError("Images to encode must be finite and within [-1, 1]; harmonise them first.")
