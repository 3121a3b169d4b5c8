"""Faces are found where they are, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.data.harmonise.faces import face_region
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume

SCANS = Path(__file__).parents[3].parent / "shared/data/scans"
Shape = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
SIDES = np.asarray([198.0, 246.0, 276.0])
ORIGIN = np.asarray([-99.0, -123.0, -166.0])  # mm, from the middle of the skull


def cranium(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return ((x / 75) ** 2 + (y / 95) ** 2 + (z / 95) ** 2 < 1) & (z > -60)


def neck(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return ((x / 55) ** 2 + ((y + 20) / 55) ** 2 < 1) & (z < -40)


def face(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    cheeks = ((x / 65) ** 2 + (y / 92) ** 2 < 1) & (y > 0) & (z < 0) & (z > -125)
    nose = (np.abs(x) < 16) & (y > 80) & (y < 112) & (z < -20) & (z > -55)
    return cheeks | nose


def head(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return cranium(x, y, z) | neck(x, y, z) | face(x, y, z)


def defaced(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return cranium(x, y, z) & ((z > -10) | (y < 50)) | neck(x, y, z) | (face(x, y, z) & (y < 40))


def brain(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return ((x / 65) ** 2 + (y / 85) ** 2 + (z / 75) ** 2 < 1) & ((z > -10) | (y < 40))


def trunk(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (x / 95) ** 2 + (y / 110) ** 2 < 1


def knob(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return ((x / 45) ** 2 + (y / 45) ** 2 + ((z + 50) / 150) ** 2 < 1) & (z < 60)


def scan(shape: Shape, spacing: tuple[float, float, float] = (3.0, 3.0, 3.0), tissue: float = 700.0) -> Volume:
    """What ``shape`` holds is tissue, the rest noise near 0."""
    counts = np.round(SIDES / spacing).astype(int)
    x, y, z = np.meshgrid(
        *(start + (np.arange(count) + 0.5) * step for start, count, step in zip(ORIGIN, counts, spacing, strict=True)),
        indexing="ij",
    )
    noise = np.random.default_rng(0).normal(0, 15, counts)
    array = (np.where(shape(x, y, z), tissue, 0) + noise).astype(np.float32)
    return Volume(array, np.diag([*spacing, 1.0]), spacing, "MR", "p", "s", Path("scan.nii"))


def at(region: np.ndarray, volume: Volume, x: float, y: float, z: float) -> bool:
    place = (np.asarray([x, y, z]) - ORIGIN) / volume.spacing
    return bool(region[tuple(place.astype(int))])


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (1.5, 2.0, 3.0), (1.5, 1.5, 6.0), (5.0, 2.0, 2.0)])
def test_face_of_a_head(spacing: tuple[float, float, float]) -> None:
    """Breaks for whoever shares slices: nose, eyes and mouth must be in the region, brain and ears out of it."""
    volume = scan(head, spacing)
    region = face_region(volume)
    assert region is not None
    assert region.shape == volume.array.shape
    assert region.dtype == bool
    for x, y, z in [(0, 106, -35), (-32, 70, -35), (32, 70, -35), (0, 80, -75), (0, 80, -100)]:
        assert at(region, volume, x, y, z), (x, y, z)
    for x, y, z in [(0, 0, 0), (0, 80, 20), (0, -80, 0), (0, -20, -120), (70, 0, -10)]:
        assert not at(region, volume, x, y, z), (x, y, z)


def test_region_keeps_no_outline() -> None:
    """Breaks for who fills the region with one value: a silhouette of the skin would be as good as the face."""
    region = face_region(scan(head))
    assert region is not None
    assert (region == region[:1]).all()
    front_most = region.any(axis=(0, 2)).nonzero()[0][-1]
    assert front_most == region.shape[1] - 1


@pytest.mark.parametrize("shape", [defaced, brain, trunk, knob, neck], ids=lambda shape: shape.__name__)
def test_no_face(shape: Shape) -> None:
    """Breaks for everybody with defaced, skull-stripped or other scans: a warning that cries wolf is switched off."""
    assert face_region(scan(shape)) is None


@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.01, 0.0), (2.0, -1024.0)])
def test_unit_does_not_matter(scale: tuple[float, float]) -> None:
    """Breaks for CT, and for MR in other units."""
    volume = scan(head)
    expected = face_region(volume)
    region = face_region(replace(volume, array=volume.array * np.float32(scale[0]) + np.float32(scale[1])))
    assert region is not None
    np.testing.assert_array_equal(region, expected)


def test_part_of_a_head_shows_no_face() -> None:
    """Breaks for slabs: eyes and nose without a chin are a face, a slab above the eyes is none."""
    volume = scan(head)
    to_the_nose, above_the_eyes, no_vertex = (volume.array[:, :, 38:], volume.array[:, :, 58:], volume.array[:, :, :84])
    region = face_region(replace(volume, array=to_the_nose))
    assert region is not None
    assert region[33, 75, 40 - 38]
    assert face_region(replace(volume, array=above_the_eyes)) is None
    assert face_region(replace(volume, array=no_vertex)) is not None


def test_volumes_that_cannot_be_judged_have_no_face() -> None:
    """Breaks for odd files: no place, no size, no content, one thick slice."""
    volume = scan(head)
    assert face_region(replace(volume, oriented=False)) is None
    assert face_region(replace(volume, spacing=(3.0, 3.0, float("nan")))) is None
    assert face_region(replace(volume, spacing=(3.0, 3.0, 30.0))) is None
    assert face_region(replace(volume, array=np.zeros_like(volume.array))) is None
    assert face_region(replace(volume, array=np.where(volume.array > 1e9, 1, 0).astype(np.float32) + 5)) is None
    assert face_region(replace(volume, array=volume.array[:, :, 40:41])) is None
    speckle = np.zeros_like(volume.array)
    speckle[::9, ::9, ::9] = 1000
    assert face_region(replace(volume, array=speckle)) is None


@pytest.mark.skipif(not SCANS.is_dir(), reason=f"real data: no scans in {SCANS}")
@pytest.mark.parametrize(
    ("name", "shows_face"),
    [
        ("brain_mr/legacy_multiframe.dcm", True),
        ("brain_mr/volrender_seg3d.nii.gz", True),
        ("brain_mr/brain1_image.nrrd", True),
        ("brain_mr/brain2_image.nrrd", True),
        ("brain_mr/volrender_stroke_t1.nii.gz", False),
        ("heart_ct/totalseg_heart.nii.gz", False),
        ("spine_mr/sct_cervical_t2s.nii.gz", False),
        ("prostate_mr/prostatex_0001/series6_t2tsetra", False),
    ],
)
def test_real_scans(name: str, shows_face: bool) -> None:
    """Breaks for real heads: full ones with noise, oblique and thick ones, a skull-stripped one, and other regions."""
    (one,), _ = find_series(SCANS / name)
    assert (face_region(next(one.load())) is not None) == shows_face
