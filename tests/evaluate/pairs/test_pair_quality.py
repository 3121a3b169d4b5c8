"""Masks that fit their images, that do not, and that are copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invented_facts import invented_facts
from tiny_pairs import make_pairs, synthetic_of

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.evaluate.pairs import pair_quality
from medvar_engine.evaluate.pairs.mask_copies import copied_masks, nearest_masks
from medvar_engine.evaluate.pairs.pair_quality import PairQuality, measure_pairs
from medvar_engine.evaluate.pairs.segmentation_utility import synthetic_pairs
from medvar_engine.evaluate.report.pair_section import pair_section
from medvar_engine.masks.structures import structures_of
from medvar_engine.value_range import encode


def measured(pairs: np.ndarray, data: Path, flagged: np.ndarray | None = None, *, steps: int = 60) -> PairQuality:
    sides = SliceDataset(data, "train"), SliceDataset(data, "test")
    return measure_pairs(synthetic_of(pairs), *sides, flagged, steps=steps)


def test_masks_that_fit_are_distinguished_from_masks_that_do_not(pair_slices: Path) -> None:
    """A model whose masks are beside its organs would be praised."""
    pairs = make_pairs(24, 60)
    fitting = measured(pairs, pair_slices)
    assert (fitting.synthetic.value or 0) > 0.9 * (fitting.held_out.value or 0) > 0.6
    assert set(fitting.by_structure) == {"square", "bar"}
    assert fitting.pair_copies is None
    pairs[:, 1] = np.roll(pairs[:, 1], 1, axis=0)
    wrong = measured(pairs, pair_slices)
    assert (wrong.synthetic.value or 0) < (fitting.synthetic.value or 0) - 0.2
    page = pair_section(fitting)
    assert f"{fitting.synthetic.value:.3g}" in page
    assert "square" in page


def test_copies_of_training_masks_are_found(tmp_path: Path) -> None:
    """Whoever shares pairs would share a patient's organs; or masks like those of new patients would be flagged."""
    rng = np.random.default_rng(0)

    def some(count: int) -> np.ndarray:
        """Rectangles of any place and size."""
        pairs = np.zeros((count, 2, 32, 32), dtype=np.float32)
        for mask in pairs[:, 1]:
            top, left, down, across = *rng.integers(0, 12, 2), *rng.integers(6, 20, 2)
            mask[top : top + down, left : left + across] = rng.integers(1, 3)
        return pairs

    with ShardWriter(tmp_path / "slices", 32, structures=structures_of(("square", "bar"))) as writer:
        for person in range(6):
            pairs = some(20)
            writer.add(encode(pairs[:, 0]), [facts(f"p{person}")] * 20, pairs[:, 1].astype(np.uint8))
        writer.finish({f"p{person}": "test" if person > 3 else "train" for person in range(6)})
    training, held_out = (SliceDataset(tmp_path / "slices", split) for split in ("train", "test"))
    made = np.concatenate([training.pairs(np.arange(10)), some(40), np.zeros((5, 2, 32, 32), np.float32)])
    found = copied_masks(synthetic_pairs(synthetic_of(made)), training, held_out)
    assert found[:10].all()
    assert found[10:50].mean() < 0.3
    assert not found[50:].any()


def facts(patient: str) -> SliceFacts:
    return invented_facts(patient, region="abdomen", low=-160.0, high=240.0)


def test_copies_of_pairs(pair_slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair is a copy when both its image and its mask are."""
    monkeypatch.setattr(pair_quality, "copied_masks", lambda *_: np.arange(8) % 2 == 0)
    found = measured(make_pairs(8, 61), pair_slices, np.arange(8) < 4, steps=1)
    assert found.mask_copies.value == pytest.approx(0.5)
    assert found.pair_copies is not None
    assert found.pair_copies.value == pytest.approx(0.25)


def test_nearest_masks() -> None:
    """An empty mask would be a copy of every empty mask; a shifted structure as near as the same one."""
    known = np.zeros((2, 8, 8), dtype=np.uint8)
    known[0, :4], known[1, 4:] = 1, 2
    asked = np.stack([known[0], np.zeros_like(known[0]), known[0] * 2, np.roll(known[0], 2, axis=0)])
    np.testing.assert_allclose(nearest_masks(asked, known, 2), [0, 1, 1, 0.5])
