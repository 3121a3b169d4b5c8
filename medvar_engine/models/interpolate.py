"""Area pooling and bicubic upsampling of token maps, as constant matrices.

Both are linear and separable, so each is ``M @ x @ M.T`` with one small matrix. This gives the same numbers in torch
and ONNX Runtime on every device, which resize operators do not guarantee. The matrices equal
`torch.nn.functional.interpolate` in modes ``area`` and ``bicubic`` (``align_corners=False``), which VAR uses. They are
always computed on the CPU, so that a model built on the device "meta" has them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medvar_engine.tokens.area import area_weights

_CUBIC_A = -0.75  # Keys' parameter in torch's bicubic


def area_matrix(source: int, target: int) -> Tensor:
    """Matrix ``(target, source)`` of area pooling: row ``i`` averages the source pixels under target pixel ``i``."""
    return torch.from_numpy(area_weights(source, target))


def bicubic_matrix(source: int, target: int) -> Tensor:
    """Matrix ``(target, source)`` of bicubic interpolation at half-pixel centres, with clamped borders."""
    matrix = torch.zeros(target, source, dtype=torch.float64, device="cpu")
    for i in range(target):
        position = (i + 0.5) * source / target - 0.5
        base = math.floor(position)
        for tap in range(base - 1, base + 3):
            matrix[i, min(max(tap, 0), source - 1)] += _cubic_weight(abs(position - tap))
    return matrix.float()


def _cubic_weight(x: float) -> float:
    a = _CUBIC_A
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def resize(image: Tensor, matrix: Tensor) -> Tensor:
    """Resize ``(B, C, H, H)`` to ``(B, C, N, N)`` with a matrix ``(N, H)``."""
    return matrix @ image @ matrix.mT
