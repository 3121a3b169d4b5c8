"""Area pooling as a matrix."""

from __future__ import annotations

import math

import numpy as np

from medvar_engine.types import FloatArray


def area_weights(source: int, target: int) -> FloatArray:
    """Matrix ``(target, source)`` of area pooling: row ``i`` averages the source pixels under target pixel ``i``.

    It equals `torch.nn.functional.interpolate` in mode ``area``, which VAR uses.
    """
    matrix = np.zeros((target, source), dtype=np.float32)
    for i in range(target):
        start, stop = (i * source) // target, math.ceil((i + 1) * source / target)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix
