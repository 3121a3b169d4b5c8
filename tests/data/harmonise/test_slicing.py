"""Slices look as radiologists expect, lie where they say, and are worth looking at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medvar_engine.data.duplicates.fingerprint import fingerprint
from medvar_engine.data.harmonise.slicing import SliceRules, cut, usable_planes, view
from medvar_engine.data.near_duplicates import distinct
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import encode


def volume_of(array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-10, -20, -30)
    return Volume(array.astype(np.float32), affine, spacing, "MR", "p", "s", Path("x"))


def test_radiological_convention() -> None:
    """Breaks for every reader of the images: patient right is on the image's left, front and head are up."""
    right, left = np.zeros((9, 9, 9), np.float32), np.zeros((9, 9, 9), np.float32)
    right[-1, :, :] = 1
    left[0, :, :] = 1
    front, head = np.zeros((9, 9, 9), np.float32), np.zeros((9, 9, 9), np.float32)
    front[:, -1, :] = 1
    head[:, :, -1] = 1
    for plane in ("axial", "coronal"):
        assert view(right, plane)[4][:, 0].all()
        assert view(left, plane)[4][:, -1].all()
    assert view(front, "axial")[4][0].all()
    assert view(head, "coronal")[4][0].all()
    assert view(head, "sagittal")[4][0].all()
    assert view(front, "sagittal")[4][:, 0].all()


def test_shapes_and_spacing_belong_together() -> None:
    """Breaks for anisotropic scans: swapped spacing stretches the image."""
    volume = volume_of(np.ones((50, 60, 70)), (1.0, 1.5, 2.0))
    expected = {
        "axial": ((60, 50), (1.5, 1.0)),
        "coronal": ((70, 50), (2.0, 1.0)),
        "sagittal": ((70, 60), (2.0, 1.5)),
    }
    for one in cut(volume, 0.5, SliceRules()):
        assert (one.images.shape[1:], one.spacing) == expected[str(one.plane)]


def test_positions_match_the_slices() -> None:
    """Breaks for whoever puts slices back into the scan."""
    volume = volume_of(np.ones((50, 60, 70)), (1.0, 1.5, 2.0))
    slabs = [one for one in cut(volume, 0.5, SliceRules()) if one.first <= 10 < one.first + len(one.images)]
    assert {one.plane: one.positions_mm[10 - one.first] for one in slabs} == {
        "axial": -10.0,
        "coronal": -5.0,
        "sagittal": 0.0,
    }
    assert {one.plane: one.places[10 - one.first] for one in slabs} == {
        "axial": 10.5 / 70,
        "coronal": 10.5 / 60,
        "sagittal": 10.5 / 50,
    }


def test_a_place_counts_all_slices_of_the_scan() -> None:
    """Breaks for conditions: the first slice with tissue would be the feet, whatever the scan shows."""
    array = np.zeros((50, 50, 40))
    array[10:40, 10:40, 30:36] = 1
    volume = volume_of(array)
    (slab,) = cut(volume, 0.5, SliceRules(planes=("axial",)))
    np.testing.assert_allclose(slab.places, (np.arange(30, 36) + 0.5) / 40)


def test_planes_with_long_pixels_or_short_sides_are_left_out() -> None:
    """Breaks for thick-slice MR: its reformatted planes are stairs, not images."""
    assert usable_planes(volume_of(np.ones((64, 64, 64)), (1, 1, 6)), SliceRules()) == ["axial"]
    assert usable_planes(volume_of(np.ones((64, 64, 20))), SliceRules()) == ["axial"]
    assert usable_planes(volume_of(np.ones((64, 64, 64))), SliceRules(planes=("coronal",))) == ["coronal"]


def test_near_empty_slices_are_dropped() -> None:
    """Breaks for training: black images teach a model to draw black images."""
    array = np.zeros((50, 50, 50))
    array[10:40, 10:40, 10:40] = 1
    array[20, 20, :] = 1
    array[:, :, 17] = 0
    volume = volume_of(array)
    slabs = list(cut(volume, 0.5, SliceRules(planes=("axial",))))
    kept = [one.first + number for one in slabs for number in range(len(one.images))]
    assert kept == [*range(10, 17), *range(18, 40)]
    assert all(image.any() for one in slabs for image in one.images)
    empty = volume_of(np.zeros((50, 50, 50)))
    assert not list(cut(empty, 0.5, SliceRules()))


@pytest.mark.parametrize("planes", [("axial", "slanted"), ()])
def test_unknown_plane(planes: tuple[str, ...]) -> None:
    """Breaks for typing errors on the command line."""
    with pytest.raises(MedvarError, match="The planes are axial, coronal, sagittal"):
        SliceRules(planes=planes)


def test_repeats_are_dropped_and_neighbours_are_not() -> None:
    """Breaks for cine, where one image would be taught many times; and for thin slices, if too much goes."""
    generator = np.random.default_rng(0)
    first, other = (np.kron(generator.uniform(-1, 1, (16, 16)), np.ones((2, 2))).astype(np.float32) for _ in range(2))
    noisy = first + generator.normal(0, 0.002, first.shape).astype(np.float32)
    brighter = first + np.float32(0.2)  # the fingerprint does not see this
    images = [first, noisy, other, brighter, first, first]
    planes = ["axial", "axial", "axial", "axial", "coronal", "axial"]
    fingerprints = [fingerprint(one) for one in images]
    kept = distinct(np.stack([encode(one) for one in images]), fingerprints, planes, bits=4, difference=0.005)
    assert kept == [0, 2, 3, 4]
    assert distinct(np.stack([encode(one) for one in images]), fingerprints, planes, bits=0, difference=0.005) == list(
        range(6)
    )


@pytest.mark.parametrize(
    "rule", [{"max_anisotropy": 0.5}, {"min_side": 0}, {"min_foreground": -1}, {"duplicate_bits": 300}]
)
def test_impossible_rules_are_refused(rule: dict[str, float]) -> None:
    """Breaks for typing errors in a recipe: with a share of 8 instead of 0.08 no slice would be left."""
    with pytest.raises(MedvarError, match=next(iter(rule))):
        SliceRules(**rule)  # type: ignore[arg-type]
