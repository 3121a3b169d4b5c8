"""`areas`: a slice and its parts. An image is a copy if one of them is copied."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from medvar_engine.memorisation.edge_maps import GRID
from medvar_engine.types import FloatArray


@lru_cache(maxsize=1)
def areas() -> FloatArray:
    """All of a slice, its halves, what is around its middle, the middle, all but a corner.

    ``(11, GRID·GRID)``: 1 where a cell belongs to the area. Turned or mirrored these are the same areas.
    """
    whole, half, corner, middle = np.zeros((4, GRID, GRID), dtype=np.float32)
    whole[:] = half[: GRID // 2] = corner[: GRID // 2, : GRID // 2] = 1
    middle[GRID // 6 : -(GRID // 6), GRID // 6 : -(GRID // 6)] = 1
    halves, corners = ([np.rot90(part, turn) for turn in range(4)] for part in (half, corner))
    parts = [whole, *halves, 1 - middle, middle, *(1 - part for part in corners)]
    return np.stack(parts).reshape(-1, GRID * GRID)
