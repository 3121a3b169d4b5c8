"""Synthetic images as slices to train on: only when asked for, and never unmarked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.data.shards import ShardFolder, verify
from medvar_engine.errors import MedvarError
from medvar_engine.request import Sampling
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.sets.mixture import Mixture
from medvar_engine.sets.set_manifest import SetManifest
from medvar_engine.sets.to_slices import to_slices

MakeSet = Callable[..., SetManifest]


def test_slices_say_that_they_are_synthetic(make: MakeSet, bundle: Bundle, tmp_path: Path) -> None:
    """A test would be passed on images of a model; or nobody could tell them from patients any more."""
    make(tmp_path / "set")
    manifest = to_slices(tmp_path / "set", tmp_path / "slices", bundle)
    folder = ShardFolder.open(tmp_path / "slices")
    verify(tmp_path / "slices")
    images = ImageSet.open(tmp_path / "set")
    np.testing.assert_array_equal(folder.shard(0), np.concatenate([images.codes(unit) for unit in range(3)]))
    assert set(manifest.split.values()) == {"train"}
    assert manifest.recipe["synthetic"] is True
    assert "synthetic" in manifest.remarks[0]
    assert {source["source"][:9] for source in manifest.sources} == {"SYNTHETIC"}
    rows = folder.table.to_pylist()
    assert [row["modality"] for row in rows] == [made.trace.request.condition.modality for made in images]
    assert {(row["unit"], row["spacing_mm"]) for row in rows} == {("HU", 0.75), ("arbitrary", None)}


def test_unsuitable_datasets_are_refused(make: MakeSet, bundle: Bundle, tmp_path: Path) -> None:
    """Pixels would be given the values of another model, or slices lack a modality."""
    make(tmp_path / "set", Mixture.of(Condition(region="brain"), Sampling()), count=1)
    with pytest.raises(MedvarError, match=r"'brain' of .* has none"):
        to_slices(tmp_path / "set", tmp_path / "slices", bundle)
    with pytest.raises(MedvarError, match="another model"):
        to_slices(tmp_path / "set", tmp_path / "slices", replace(bundle, sha256={}))
    assert not (tmp_path / "slices").exists()
