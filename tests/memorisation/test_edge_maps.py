"""Edge maps know no window, gamma or polarity, and views bring a turned copy back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medvar_engine.memorisation.edge_maps import FORMS, GRID, Maps, as_it_is, edge_map, views
from medvar_engine.types import FloatArray


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


def test_every_form_is_among_the_views(image: FloatArray) -> None:
    known = edge_map(image)
    for mirrored in (image, image[:, ::-1]):
        for turns in range(4):
            maps, zooms = views(np.ascontiguousarray(np.rot90(mirrored, turns)))
            assert len(maps) == len(zooms)
            plain = as_it_is(maps)
            assert len(plain) == FORMS
            assert max(alike(known, one) for one in plain) > 0.999


def test_any_size_is_described(slices_of: Callable[..., FloatArray]) -> None:
    large = slices_of(4, 1, 256)[0]
    halves = large.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    assert alike(edge_map(large), edge_map(halves)) > 0.95
    assert edge_map(np.zeros((5, 9), np.float32)).shape == (GRID, GRID)
    assert not edge_map(np.zeros((16, 16), np.float32)).any()
