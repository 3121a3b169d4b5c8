"""The constant resize matrices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from medvar_engine.models.interpolate import area_matrix, bicubic_matrix, resize
from medvar_engine.models.presets import TOKENIZERS

SCHEDULES = {config.schedule for config in TOKENIZERS.values()} | {(1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}  # VAR at 512
PAIRS = sorted({(side, schedule[-1]) for schedule in SCHEDULES for side in schedule})


@pytest.mark.parametrize(("coarse", "fine"), PAIRS)
def test_area_matrix_equals_torch(coarse: int, fine: int) -> None:
    """Else published weights would see other residuals than they were trained on, and choose other tokens."""
    image = torch.randn(2, 3, fine, fine)
    expected = F.interpolate(image, size=(coarse, coarse), mode="area")
    torch.testing.assert_close(resize(image, area_matrix(fine, coarse)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("coarse", "fine"), PAIRS)
def test_bicubic_matrix_equals_torch(coarse: int, fine: int) -> None:
    """Else a user's imported model would draw blurred or shifted previews."""
    image = torch.randn(2, 3, coarse, coarse)
    expected = F.interpolate(image, size=(fine, fine), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resize(image, bicubic_matrix(coarse, fine)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "matrix", [area_matrix(16, 5), bicubic_matrix(5, 16), area_matrix(32, 13), bicubic_matrix(1, 7)]
)
def test_rows_sum_to_one(matrix: torch.Tensor) -> None:
    """A flat region has to stay flat, or brightness would drift from scale to scale."""
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)))


def test_matrices_are_real_on_a_meta_device() -> None:
    """Files are loaded into models built on "meta": their matrices have to hold numbers there, too."""
    with torch.device("meta"):
        matrices = area_matrix(4, 2), bicubic_matrix(2, 4)
    assert [matrix.device.type for matrix in matrices] == ["cpu", "cpu"]
