"""Neighbours of stacks against those of real volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.report.pair_section import stack_section
from medvar_engine.evaluate.stack_smoothness import measure_stacks
from medvar_engine.generate.generator import Generator


def test_stacks_are_compared_with_volumes_at_the_same_spacing(pair_bundle: Bundle, pair_slices: Path) -> None:
    """A stack would be called smooth for being compared with slices far apart, or with those of other patients."""
    data = SliceDataset(pair_slices)
    by_label = measure_stacks(Generator(OnnxBackend(pair_bundle, device="cpu")), pair_bundle, data)
    assert list(by_label) == ["CT abdomen axial"]
    found = by_label["CT abdomen axial"]
    assert found.spacing_mm == 3
    images = data.batch(np.arange(len(data)))[:, 0].reshape(7, 12, 16, 16)
    assert np.isclose(found.real, np.abs(np.diff(images, axis=1)).mean(), rtol=1e-3)
    assert 0 < found.stacks < found.unrelated
    assert f"{found.ratio:.3g}" in stack_section(by_label)


def test_series_of_different_distances(pair_bundle: Bundle, pair_slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of two distances is that of no pair: the mean of no pairs would lose the whole evaluation."""
    data = SliceDataset(pair_slices)
    series = sorted({row.series for row in data.rows})[:2]
    spread = dict(zip(series, (1, 3), strict=True))  # 3 mm and 9 mm; the other series have no places
    rows = [
        replace(row, position_mm=None if row.series not in spread else row.position_mm * spread[row.series])
        for row in data.rows
    ]
    monkeypatch.setattr(data, "rows", rows)
    generator = Generator(OnnxBackend(pair_bundle, device="cpu"))
    found = measure_stacks(generator, pair_bundle, data)["CT abdomen axial"]
    assert found.spacing_mm == 3
    assert found.real > 0
    few = [row if row.series == series[0] else replace(row, position_mm=None) for row in rows]
    uneven = [row if row.position_mm is None else replace(row, position_mm=1.5**row.position_mm) for row in few]
    monkeypatch.setattr(data, "rows", uneven)
    assert measure_stacks(generator, pair_bundle, data) == {}


def test_slices_without_positions_are_left_out(pair_bundle: Bundle, prepared: object, tmp_path: Path) -> None:
    """Slices of a label that the model does not know would end the evaluation."""
    data = SliceDataset(prepared(tmp_path / "slices", ["mr1", "mr2", "mr3"], size=16))  # type: ignore[operator]
    assert measure_stacks(Generator(OnnxBackend(pair_bundle, device="cpu")), pair_bundle, data) == {}
