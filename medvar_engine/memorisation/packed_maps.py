"""Edge maps with one byte per cell: four bits for each part of a direction, with finer steps for small values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medvar_engine.memorisation.edge_maps import GRID, Maps

NUMBERS = GRID * GRID  # bytes of a map
_MOST = np.float32(0.7)  # larger values are stored as this one
_STEPS = 7  # values on either side of 0
_VALUES = (np.arange(16) - 8) * np.abs(np.arange(16) - 8) * _MOST / _STEPS**2
_TABLE = (_VALUES[:, None] + 1j * _VALUES).ravel().astype(np.complex64)  # the direction of every byte

Packed = npt.NDArray[np.uint8]


def pack(maps: Maps) -> Packed:
    """``(N, GRID, GRID)`` → ``(N, NUMBERS)``."""
    real, imaginary = (_rounded(part).astype(np.uint8) for part in (maps.real, maps.imag))
    return (16 * real + imaginary).reshape(-1, NUMBERS)


def unpack(rows: Packed) -> Maps:
    """The inverse of `pack`, except for rounding by a ninth of the value on average."""
    return np.asarray(_TABLE[rows].reshape(-1, GRID, GRID))


def _rounded(part: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    size = np.sqrt(np.minimum(np.abs(part), _MOST) / _MOST)
    return np.rint(np.sign(part) * size * _STEPS) + 8
