"""The samples in napari's File menu."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medvar_engine.errors import MedvarError
from napari_medvar import sample_data
from napari_medvar.layers.image_layers import trace_of
from napari_medvar.sample_data import SAMPLES, growing_chest, real_brain


def test_the_real_slice_is_upright_in_millimetres_and_attributed() -> None:
    """The sample would be upside down or of no size, or the licence of who gave it away be broken."""
    ((pixels, attributes, kind),) = real_brain()
    assert kind == "image"
    assert pixels.shape == (96, 128)
    assert attributes["scale"] == (2.0, 2.0)
    assert attributes["units"] == ("mm", "mm")
    low, high = attributes["contrast_limits"]
    assert 0 < (pixels > (low + high) / 2).mean() < 0.5
    rows, columns = np.nonzero(pixels > high / 4)
    assert np.ptp(rows) > np.ptp(columns)  # heads are longer than wide
    assert "MIT" in attributes["metadata"]["attribution"]
    text = (SAMPLES / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert re.search(r"Copyright .*\n(.*\n)*Permission is hereby granted", text)


def test_the_real_slice_is_small() -> None:
    """Every installation would carry it."""
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 60_000


def test_the_synthetic_sample_grows_and_carries_its_trace() -> None:
    """The first thing that a new user sees would be missing, or not be marked as synthetic."""
    layers = growing_chest()
    traces = [trace_of(_layer(attributes)) for _, attributes, _ in layers]
    assert all(trace is not None and trace.pyramid.complete for trace in traces)
    assert [attributes["metadata"]["medvar"]["scale"] for _, attributes, _ in layers] == list(range(len(layers)))
    assert [attributes["visible"] for _, attributes, _ in layers] == [False] * (len(layers) - 1) + [True]
    pixels, attributes, _ = layers[-1]
    assert attributes["metadata"]["medvar"]["synthetic"] is True
    assert attributes["contrast_limits"] == [-1000, 400]
    corner, middle = pixels[:8, :8].mean(), pixels[pixels.shape[0] // 2].mean()
    assert corner < -800 < middle  # air around a body


def test_a_missing_file_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A broken installation would end in a traceback."""
    monkeypatch.setattr(sample_data, "SAMPLES", tmp_path)
    with pytest.raises(MedvarError, match="Install it again"):
        real_brain()


def _layer(attributes: dict[str, Any]) -> Any:
    return SimpleNamespace(metadata=attributes["metadata"])
