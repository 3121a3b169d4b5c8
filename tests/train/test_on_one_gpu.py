"""The script for a GPU that is lent for minutes, at toy size on the CPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.weight_files import load_tokenizer, load_transformer

SCRIPT = Path(__file__).parents[2] / "medvar_engine" / "train" / "recipes" / "on_one_gpu.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with trials of two steps, and about a second of them in ten minutes."""
    spec = importlib.util.spec_from_file_location("on_one_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TRIAL", 2)
    monkeypatch.setattr(module, "USED", 0.002)
    return module


def test_the_calls_leave_a_model(script: ModuleType, slices: Path, tmp_path: Path) -> None:
    """The minutes on a GPU would end with nothing, or with files too large to come back."""
    packed, out = tmp_path / "slices.zip", tmp_path / "out"
    script.main(["pack", str(slices), str(packed)])
    small = ("batch_size=2", "device=cpu", "precision=float32", "compile=false", "validate_slices=2", "drawn_scales=2")
    with pytest.raises(MedvarError, match="Run the calls tokenizer, transformer, guide and refiner in this order"):
        script.main(["refiner", str(packed), str(out), *small])
    for call in ("tokenizer", "transformer", "guide", "refiner"):
        script.main([call, str(packed), str(out), *small, "--minutes", "10"])
    assert sorted(path.name for path in out.glob("*.safetensors")) == [
        f"{name}.safetensors" for name in ("guide", "refiner", "tokenizer", "transformer")
    ]
    first, last = load_tokenizer(out / "tokenizer.safetensors"), load_tokenizer(out / "refiner.safetensors")
    assert np.array_equal(first.quantizer.codes, last.quantizer.codes)
    for name in ("transformer", "guide"):
        assert load_transformer(out / f"{name}.safetensors")[0].config.vocabulary == first.config.vocabulary


def test_what_is_packed_comes_back(script: ModuleType, slices: Path, tmp_path: Path) -> None:
    """The GPU would learn from other slices, or from patients who are held out."""
    script.pack(slices, tmp_path / "slices.zip")
    script.unpack(tmp_path / "slices.zip", tmp_path / "again")
    for split in ("train", "test"):
        before, after = SliceDataset(slices, split), SliceDataset(tmp_path / "again", split)
        assert len(after) == len(before)
        assert [one.patient for one in after.rows] == [one.patient for one in before.rows]
        assert after.rows[0].fingerprint == before.rows[0].fingerprint
        assert np.abs(after.batch(range(len(after))) - before.batch(range(len(before)))).max() <= 1 / 255 + 1e-4


def test_files_stay_below_the_size_limit(script: ModuleType, slices: Path, tmp_path: Path) -> None:
    """It would be refused on the way, after minutes of packing."""
    whole = script.pack(slices, tmp_path / "all.zip")
    size = (tmp_path / "all.zip").stat().st_size
    assert script.pack(slices, tmp_path / "some.zip", most=int(0.8 * size)) < whole
    assert (tmp_path / "some.zip").stat().st_size <= 0.8 * size
