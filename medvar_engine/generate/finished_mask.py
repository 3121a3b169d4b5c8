"""The mask of an image whose outside is exactly another image's: the new one inside the region, the old one outside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medvar_engine.generate.composite import exact_outside
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray


def finished_mask(trace: Trace, own: MaskArray, decode: Callable[[Trace], MaskArray]) -> MaskArray:
    """The mask ``(H, W)`` of ``trace``, of which ``own`` is decoded from its tokens; ``decode`` gives that of another.

    As with pictures, but never blended: numbers of structures have no middle. A soft edge belongs to the new image
    where it shows more of that.
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
