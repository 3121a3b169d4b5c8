"""The feature cache: the same features whether a run was killed or not, and never those of something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders import feature_cache as module
from medvar_engine.encoders.feature_cache import cache_key, cached_features
from medvar_engine.encoders.image_source import ArrayImages, PreparedImages
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

Slices = Callable[..., FloatArray]


class Averages:
    """Features that are two numbers a slice; counts what it encodes, and may be killed on the way."""

    name, sha256, dimension = "averages", "a" * 64, 2

    def __init__(self, dies_after: int | None = None, size: int = 1) -> None:
        self.encoded, self.dies_after, self.size = 0, dies_after, size

    def encode(self, images: FloatArray) -> FloatArray:
        if self.dies_after is not None and self.encoded >= self.dies_after:
            raise KeyboardInterrupt
        self.encoded += len(images)
        return np.stack([images.mean(axis=(1, 2)), images[:, 0, 0]], axis=1).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256, "dimension": 2, "preprocessing": {"size": self.size}}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)


def test_features_are_computed_once(tmp_path: Path, slices_of: Slices) -> None:
    """Breaks for whoever adds a metric: encoding everything again takes hours."""
    images, encoder, told = ArrayImages(slices_of(0, 10)), Averages(), []
    first = cached_features(encoder, images, tmp_path / "new" / "cache", lambda *count: told.append(count))
    again = cached_features(encoder, images, tmp_path / "new" / "cache")
    assert encoder.encoded == 10
    assert [*dict.fromkeys(told)] == [(4, 10), (8, 10), (10, 10)]
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(again, Averages().encode(slices_of(0, 10)))
    assert not list(tmp_path.rglob("*.partial.*"))


def test_a_killed_run_continues(tmp_path: Path, slices_of: Slices) -> None:
    """Breaks for long runs on clusters, which are killed as a matter of course."""
    images, dying, fresh = ArrayImages(slices_of(1, 19)), Averages(dies_after=8), Averages()
    with pytest.raises(KeyboardInterrupt):
        cached_features(dying, images, tmp_path)
    features = cached_features(fresh, images, tmp_path)
    assert fresh.encoded == 19 - 8
    np.testing.assert_array_equal(features, Averages().encode(slices_of(1, 19)))


@pytest.mark.parametrize("damage", ["note", "cut", "garbage", "whole"])
def test_damaged_files_are_computed_again(tmp_path: Path, slices_of: Slices, damage: str) -> None:
    """Breaks after a full disk or a power cut: half of the features would be zeros, and every figure wrong."""
    images = ArrayImages(slices_of(2, 12))
    with pytest.raises(KeyboardInterrupt):
        cached_features(Averages(dies_after=8), images, tmp_path)
    (partial,) = tmp_path.glob("*.partial.npy")
    if damage == "note":
        partial.with_suffix(".json").write_text('{"done": 99}')
    elif damage == "cut":
        partial.write_bytes(partial.read_bytes()[:-9])
    elif damage == "garbage":
        partial.write_bytes(b"nothing")
    else:
        (tmp_path / f"{cache_key(Averages(), images)}.npy").write_bytes(b"nothing")
    np.testing.assert_array_equal(cached_features(Averages(), images, tmp_path), Averages().encode(slices_of(2, 12)))


def test_other_images_and_encoders_have_other_features(slices_of: Slices, people: Path) -> None:
    """Breaks for comparing models: features of another model's images under the same name are worse than none."""
    array = slices_of(0, 6)
    images, encoder = ArrayImages(array), Averages()
    keys = {
        cache_key(encoder, images),
        cache_key(Averages(size=2), images),
        cache_key(encoder, ArrayImages(array[::-1])),
        cache_key(encoder, ArrayImages(array[:5])),
        cache_key(encoder, PreparedImages(SliceDataset(people, split="train"))),
        cache_key(encoder, PreparedImages(SliceDataset(people, split="test"))),
    }
    assert len(keys) == 6
    assert cache_key(encoder, ArrayImages(array.copy())) == cache_key(encoder, images)


def test_an_empty_source_has_no_features(tmp_path: Path) -> None:
    """Breaks for a label of which nothing was generated."""
    images = ArrayImages(np.zeros((0, 8, 8), np.float32))
    for _ in range(2):
        assert cached_features(Averages(), images, tmp_path).shape == (0, 2)


def test_a_second_run_is_refused(tmp_path: Path, slices_of: Slices) -> None:
    """Breaks for two terminals: both would write into one file."""
    images = ArrayImages(slices_of(0, 6))
    with FileLock(tmp_path / f"{cache_key(Averages(), images)}.lock"), pytest.raises(MedvarError, match="another run"):
        cached_features(Averages(), images, tmp_path)


def test_an_unwritable_folder_is_reported(tmp_path: Path, slices_of: Slices) -> None:
    """Breaks for a mistyped cache folder: a message, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MedvarError, match="cannot be written"):
        cached_features(Averages(), ArrayImages(slices_of(0, 6)), tmp_path / "file")


def test_images_are_within_their_range(slices_of: Slices) -> None:
    """Breaks for values in HU, which no encoder takes."""
    with pytest.raises(MedvarError, match=r"\[-1, 1\]"):
        ArrayImages(slices_of(5, 4) * 1000)
