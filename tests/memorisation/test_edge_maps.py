"""Edge maps know no window, gamma or polarity; views bring a turned copy back; what is masked is not seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medvar_engine.memorisation.edge_maps import FORMS, GRID, Directions, Maps, View, edge_map, turned, turned_back
from medvar_engine.memorisation.packed_maps import NUMBERS, pack, unpack
from medvar_engine.types import FloatArray

AS_IT_IS = (np.ones(1), np.zeros(1), np.zeros(1))


def alike(first: Maps, second: Maps) -> float:
    product = np.vdot(first, second).real
    return float(product / (np.linalg.norm(first) * np.linalg.norm(second)))


@pytest.fixture
def image(slices_of: Callable[..., FloatArray]) -> FloatArray:
    return np.asarray(slices_of(4, 1, 128)[0])


def test_brightness_does_not_matter(image: FloatArray) -> None:
    known = edge_map(image)
    assert known.shape == (GRID, GRID)
    assert alike(known, edge_map(-image)) == pytest.approx(1, abs=1e-4)
    for changed in (image * 0.5, image * 0.5 + 0.3, 2 * ((image + 1) / 2) ** 2 - 1, 2 * ((image + 1) / 2) ** 0.5 - 1):
        assert alike(known, edge_map(np.clip(changed, -1, 1).astype(np.float32))) > 0.85


def test_every_form_is_brought_back(image: FloatArray) -> None:
    known = edge_map(image)
    for form in range(FORMS):
        changed = np.rot90(image[:, ::-1] if form >= FORMS // 2 else image, form % 4)
        maps = edge_map(np.ascontiguousarray(changed))
        assert alike(turned(known, form), maps) > 0.999
        assert alike(known, turned_back(maps, form)) > 0.999


def test_any_size_is_described(slices_of: Callable[..., FloatArray]) -> None:
    large = slices_of(4, 1, 256)[0]
    halves = large.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    assert alike(edge_map(large), edge_map(halves)) > 0.95
    assert edge_map(np.zeros((5, 9), np.float32)).shape == (GRID, GRID)
    assert not edge_map(np.zeros((16, 16), np.float32)).any()


def test_flat_masks_are_ignored(image: FloatArray) -> None:
    """Breaks for masked copies: the border of the mask would be an edge, and what it hides would be missing."""
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 0.05, image.shape), -1, 1).astype(np.float32)
    masked = noisy.copy()
    masked[:64] = 0.3
    maps, seen, views = Directions.of(masked).views(*AS_IT_IS)
    assert views == [View(1, 0, 0)]
    assert not maps[0, :12].any()
    assert not seen[0, :12].any()
    assert (seen[0, 13:] == 1).all()
    assert alike(maps[0, 13:], edge_map(noisy)[13:]) > 0.98
    assert Directions.of(noisy).seen.all()


def test_a_map_is_a_byte_a_cell(image: FloatArray) -> None:
    maps = np.stack([edge_map(image), edge_map(image.T)])
    rows = pack(maps)
    assert (rows.shape, rows.dtype) == ((2, NUMBERS), np.uint8)
    assert alike(unpack(rows), maps) > 0.98
    np.testing.assert_array_equal(pack(unpack(rows)), rows)
