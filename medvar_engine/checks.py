"""What a model can be asked for. Each check raises `MedvarError` saying what was wrong and what would be right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import BackendInfo
from medvar_engine.errors import MedvarError
from medvar_engine.request import Request
from medvar_engine.sampling import Sampling
from medvar_engine.trace import Trace


def check_model(info: BackendInfo, trace: Trace) -> None:
    """Tokens mean something only to the model that made them, whose weights it may name in place of its graphs."""
    if trace.pyramid.schedule != info.schedule:
        raise MedvarError(
            f"This image has scales of sides {trace.pyramid.schedule}, but the model has {info.schedule}; "
            "open the bundle that made it."
        )
    if trace.model not in (info.model, info.weights or info.model):
        raise MedvarError(
            f"This image was made by another model (sha256 {trace.model[:12]}…, not {info.model[:12]}…); "
            "open the bundle that made it. If a transformer for fine scales drew too, it must hold that one."
        )
    check_tokens(info, trace.pyramid.sequence)


def check_tokens(info: BackendInfo, tokens: IntArray) -> None:
    """Tokens of any shape are within the vocabulary."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < info.vocabulary:
        raise MedvarError(
            f"Tokens must be within 0…{info.vocabulary - 1}, but range over {tokens.min()}…{tokens.max()}."
        )


def check_requests(info: BackendInfo, requests: Sequence[Request]) -> None:
    """There are some, and the model knows their conditions."""
    if not requests:
        raise MedvarError("There is nothing to generate: the list of requests is empty.")
    for request in requests:
        info.labels.encode(request.condition)
        check_skipping(info.partial_scales, request.sampling)


def check_skipping(partial_scales: bool, sampling: Sampling) -> None:
    """Where tokens are to be skipped, the model's graph can run ``partial_scales``."""
    if sampling.skip_settled and not partial_scales:
        raise MedvarError(
            "This bundle was exported before tokens could be skipped, so that its graph runs whole scales only. Leave "
            "out skip_settled (--skip-settled), or export the model anew with `medvar export`."
        )


def check_logits(logits: FloatArray) -> FloatArray:
    """``logits`` themselves, which are finite: of NaN something would be drawn, but nothing that the model says."""
    if not np.isfinite(logits).all():
        raise MedvarError(
            "The model gave NaN or infinity in place of logits: its weights are damaged, or its precision is too low "
            "for this device. Check the bundle with `medvar info`, or export the model again in float32."
        )
    return logits


def check_images(info: BackendInfo, images: FloatArray, count: int) -> None:
    """Images to encode: ``(count, H, W)``, or ``(count, H, W, 3)`` for a colour model, finite and in [-1, 1]."""
    expected = (count, info.image_size, info.image_size) + ((3,) if info.image_channels == 3 else ())
    if images.shape != expected:
        raise MedvarError(f"This model encodes images of shape {expected}, but got {images.shape}.")
    if not np.isfinite(images).all() or np.abs(images).max(initial=0) > 1 + 1e-3:
        raise MedvarError("Images to encode must be finite and within [-1, 1]; harmonise them first.")
