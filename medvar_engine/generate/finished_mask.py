"""The mask of structures of an image that was edited inside a region and keeps the exact outside of its parent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medvar_engine.generate.composite import exact_outside
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray


def finished_mask(trace: Trace, own: MaskArray, decode: Callable[[Trace], MaskArray]) -> MaskArray:
    """The mask ``(H, W)`` of ``trace``: ``own``, decoded from its tokens, inside the region, and its parent's outside.

    ``decode`` returns the mask of another trace. Unlike pixels, numbers of structures cannot be blended: along a soft
    edge the mask is that of the image with the larger weight.
    """
    layers, current = [], trace
    while (found := exact_outside(current)) is not None and current.parent is not None:
        layers.append(found[0])
        current = current.parent
    if not layers:
        return own
    masks = [own]
    current = trace
    for _ in layers:
        assert current.parent is not None
        current = current.parent
        masks.append(decode(current))
    finished = masks[-1]
    for inside, mask in zip(reversed(layers), reversed(masks[:-1]), strict=True):
        finished = np.where(inside, mask, finished)
    return finished
