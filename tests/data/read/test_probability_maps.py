"""Probability maps and soft masks are refused by their values; scans that were normalised to 0..1 are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from medvar_engine.data.read.probability_maps import looks_like_probabilities
from medvar_engine.data.read.scans import find_series
from medvar_engine.errors import MedvarError

SCANS = Path(__file__).parents[3].parent / "shared/data/scans"
SIDE = 64
GRID = np.stack(np.meshgrid(*(np.linspace(-1, 1, SIDE),) * 3, indexing="ij"))
HEAD = (GRID**2).sum(axis=0) < 0.7


def tissue(width: float = 4, seed: int = 0) -> np.ndarray:
    """A smooth random field of unit variance, whose sign makes two folded tissues."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=HEAD.shape), width)
    return np.asarray(field / field.std())


def smoothed(mask: np.ndarray, sigma: float) -> np.ndarray:
    found = gaussian_filter(mask.astype(float), sigma)
    return np.where(found < 1e-3, 0, found)


def softmax(sharpness: float) -> np.ndarray:
    scores = np.exp(sharpness * np.stack([tissue(seed=seed) for seed in range(3)]))
    return np.where(HEAD, scores[0] / scores.sum(axis=0), 0)


def partial_volumes() -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 0.03, HEAD.shape)
    return np.where(HEAD, np.clip(smoothed(tissue() > 0, 0.8) + noise, 0, 1), 0)


def of_a_network() -> np.ndarray:
    """A sigmoid that is nowhere exactly 0 or 1."""
    return 1 / (1 + np.exp(-np.where(HEAD, 8 * tissue() + 3, -12)))


MAPS = {
    "tissue": lambda: smoothed((tissue() > 0) & HEAD, 1),
    "8 bits": lambda: np.round(smoothed((tissue() > 0) & HEAD, 1) * 255) / 255,
    "soft mask": lambda: smoothed(HEAD, 2),
    "small soft mask": lambda: smoothed((GRID**2).sum(axis=0) < 0.05, 1.5),
    "softmax": lambda: softmax(6),
    "partial volumes": partial_volumes,
    "network": of_a_network,
    "thin": lambda: smoothed((np.abs(tissue()) < 0.25) & HEAD, 0.8),
    "population": lambda: smoothed((tissue() > 0) & ((GRID**2).sum(axis=0) < 0.4), 4),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_refused(tmp_path: Path, nifti: Any, name: str) -> None:
    """Breaks for folders of SPM, FSL and of networks: a map of white matter would be trained on as MR."""
    nifti(tmp_path / "brain.nii.gz", MAPS[name]().astype(np.float32))
    (one,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match="probability map"):
        list(one.load())


def scan() -> np.ndarray:
    """A head of two tissues with noise, in noise."""
    values = np.where(HEAD, np.where(tissue() > 0, 700, 400), 0) + 100 * (tissue(8, 3) > 1)
    return np.asarray(np.abs(values + np.random.default_rng(2).normal(0, 25, HEAD.shape)))


def normalised(values: np.ndarray) -> dict[str, np.ndarray]:
    """A scan normalised to 0..1 in many ways."""
    low, high = values.min(), values.max()
    bright, brighter = np.percentile(values, (95, 99))
    dark = low + 0.15 * (brighter - low)
    faint = np.clip((values - dark) / (high - dark), 0, 1)
    padded = np.pad(np.clip((values - low) / (bright - low), 0, 1), 10)
    padded[5, 5, 5] = 1e-3
    return {
        "lowest to highest": (values - low) / (high - low),
        "percentiles": np.clip((values - low) / (brighter - low), 0, 1),
        "masked": np.where(values > dark, (values - low) / (high - low), 0),
        "without noise": faint,
        "clipped": np.clip((values - dark) / (bright - dark), 0, 1),
        "padded": padded,
        "one bright voxel": np.where(np.arange(values.size).reshape(values.shape) == 0, 1, faint / 10),
        "enlarged": zoom(faint[::2, ::2, ::2], 2, order=1),
    }


@pytest.mark.parametrize("name", normalised(scan()))
def test_normalised_scans_are_read_with_a_remark(tmp_path: Path, nifti: Any, name: str) -> None:
    """Breaks for whoever has normalised scans: they are no maps, and must not be lost."""
    nifti(tmp_path / "prob.nii.gz", normalised(scan())[name].astype(np.float32))
    (one,), _ = find_series(tmp_path)
    (volume,) = one.load()
    assert any("between 0 and 1" in remark for remark in volume.remarks)


def test_other_scans_are_read_without_a_remark(tmp_path: Path, nifti: Any, phantom: Any) -> None:
    """Breaks for everybody with ordinary scans."""
    nifti(tmp_path / "scan.nii.gz", phantom)
    (one,), _ = find_series(tmp_path)
    assert not next(one.load()).remarks


@pytest.mark.skipif(not SCANS.is_dir(), reason=f"real data: no scans in {SCANS}")
@pytest.mark.parametrize(
    "name", ["brain_mr/volrender_seg3d.nii.gz", "brain_mr/volrender_stroke_t1.nii.gz", "abdomen_mr/totalseg_mr.nii.gz"]
)
def test_real_scans_are_no_maps(name: str) -> None:
    """Breaks for real noise, masks and contrasts, whatever normalised them."""
    (one,), _ = find_series(SCANS / name)
    values = next(one.load()).array.astype(float)
    assert not [how for how, array in normalised(values).items() if looks_like_probabilities(array)]
