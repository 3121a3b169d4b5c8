"""Checks of features before metrics are computed."""

from __future__ import annotations

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.feature_rows import Features

_ROWS = 4096


def check_comparable(*sides: Features) -> None:
    """Raises `MedvarError` unless all sides are finite arrays ``(N, D)`` with the same D."""
    for side in sides:
        if side.ndim != 2 or side.shape[1] != sides[0].shape[-1]:
            shapes = " and ".join(str(one.shape) for one in sides)
            raise MedvarError(f"Features must be (N, D) with the same D, from one encoder, but are {shapes}.")
        for first in range(0, len(side), _ROWS):
            if not np.isfinite(side[first : first + _ROWS]).all():
                raise MedvarError(
                    "Some features are not finite, so they cannot be compared: the encoder fails on some image."
                )
