"""Images with an exact outside: the new image inside a mask, the old one outside."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from scipy.ndimage import distance_transform_edt

from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Outside, Resample
from medvar_engine.generate.trace import Trace
from medvar_engine.types import BoolArray, FloatArray

CACHED_IMAGES = 64  # 256 KiB each at 256×256


def exact_outside(trace: Trace) -> tuple[BoolArray, Outside] | None:
    """Mask and `Outside` of an image with exactly the outside of its parent; None for other images."""
    edit = trace.edit
    if not isinstance(edit, Resample) or edit.mask is None or edit.outside is None:
        return None
    return edit.mask, edit.outside


def weight_inside(mask: BoolArray, soft_edge: float) -> FloatArray:
    """Weight of the new image ``(H, W)``: 0 outside the mask, increasing to 1 within ``soft_edge`` pixels inside it.

    Exactly 0 wherever the mask is false, and for a hard edge (``soft_edge`` 0) exactly 1 wherever it is true.
    """
    if mask.all():
        return np.ones(mask.shape, dtype=np.float32)
    distance = distance_transform_edt(mask)  # to the nearest pixel outside; at least 1 inside
    weight: FloatArray = np.clip(distance / (soft_edge + 1), 0, 1).astype(np.float32)
    return weight


def composite(inside: FloatArray, outside: FloatArray, weight: FloatArray) -> FloatArray:
    """Two images ``(H, W)`` or ``(H, W, 3)``, blended by ``weight`` ``(H, W)``.

    Bit for bit the outer image where the weight is 0, and the inner one where it is 1.
    """
    weight = weight.reshape(weight.shape + (1,) * (inside.ndim - 2))
    blended: FloatArray = outside + weight * (inside - outside)
    return np.where(weight == 0, outside, np.where(weight == 1, inside, blended))


def image_key(trace: Trace) -> str:
    """A content key for the pixels of an image: a hash of its tokens and of the visible parts of its parents.

    For a trace with a prefix of the pyramid it is the key of that preview.
    """
    return _named_layers(trace)[0][1]


class FinishedImages:
    """A cache of finished images, each decoded once. ``decode`` returns the pixels of one trace, ``(H, W[, 3])``.

    It holds the newest `CACHED_IMAGES` images. Emptying it changes no image.
    """

    def __init__(self, decode: Callable[[Trace], FloatArray]) -> None:
        self._decode = decode
        self._known: OrderedDict[str, FloatArray] = OrderedDict()

    def of(self, trace: Trace) -> FloatArray:
        """The pixels ``(H, W[, 3])`` of a finished image, in [-1, 1]."""
        layers = _named_layers(trace)
        lost = next((i for i, (_, name) in enumerate(layers) if name in self._known), len(layers))
        image = self._known[layers[lost][1]] if lost < len(layers) else None
        for layer, name in reversed(layers[:lost]):
            image = _laid_over(layer, self._decode(layer), image)
            self.keep(name, image)
        assert image is not None
        return image

    def finished(self, trace: Trace, decoded: FloatArray) -> FloatArray:
        """The visible image of a trace, from the ``decoded`` pixels of all its tokens or of a prefix."""
        if exact_outside(trace) is None:
            return decoded
        return _laid_over(trace, decoded, self.of(_parent(trace)))

    def keep(self, name: str, image: FloatArray) -> None:
        """Store an image under its `image_key`."""
        self._known[name] = image
        self._known.move_to_end(name)
        if len(self._known) > CACHED_IMAGES:
            self._known.popitem(last=False)


def _laid_over(trace: Trace, decoded: FloatArray, parent: FloatArray | None) -> FloatArray:
    """The image of a trace, over the image of its parent if the edit says so."""
    if (kept := exact_outside(trace)) is None:
        return decoded
    assert parent is not None
    mask, outside = kept
    if mask.shape != decoded.shape[:2]:
        raise MedvarError(f"The mask must cover the image, {decoded.shape[:2]} pixels, but is {mask.shape}.")
    return composite(decoded, parent, weight_inside(mask, outside.soft_edge))


def _named_layers(trace: Trace) -> list[tuple[Trace, str]]:
    """The image, its parent if it is visible outside a mask, and so on; each with the key of its pixels."""
    layers = [trace]
    while exact_outside(layers[-1]):
        layers.append(_parent(layers[-1]))
    names: list[str] = []
    for layer in reversed(layers):  # not by recursion, because a session can be longer than the stack
        digest = hashlib.sha256(f"{layer.bundle_id} {layer.pyramid.digest(0)}".encode())
        if kept := exact_outside(layer):
            mask, outside = kept
            digest.update(f" {names[-1]} {mask.shape} {outside.soft_edge!r} ".encode() + np.packbits(mask).tobytes())
        names.append(digest.hexdigest())
    return list(zip(layers, reversed(names), strict=True))


def _parent(trace: Trace) -> Trace:
    if trace.parent is None or not trace.parent.pyramid.complete:
        raise MedvarError("The image that shows outside the mask is not in this trace, or unfinished.")
    return trace.parent
