"""What two sets of features must be before any figure is computed of them."""

from __future__ import annotations

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.feature_rows import Features

_ROWS = 4096


def check_comparable(*sides: Features) -> None:
    """Raises `MedvarError` unless all sides are ``(N, D)`` of the same D, and finite: NaN would pass for a distance."""
    for side in sides:
        if side.ndim != 2 or side.shape[1] != sides[0].shape[-1]:
            shapes = " and ".join(str(one.shape) for one in sides)
            raise MedvarError(f"Features are (N, D), of one encoder and so with the same D, but got {shapes}.")
        for first in range(0, len(side), _ROWS):
            if not np.isfinite(side[first : first + _ROWS]).all():
                raise MedvarError("Features that are not finite cannot be compared: the encoder fails on some image.")
