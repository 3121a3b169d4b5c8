"""Files are added to a bundle in one step, and nothing else about it changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medvar_engine import storage as files_module
from medvar_engine.bundle.add_files import add_to_bundle
from medvar_engine.bundle.read import CARD, read_bundle
from medvar_engine.errors import MedvarError


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_files_are_added_and_the_model_stays_the_same(bundle: Path) -> None:
    """Breaks for sittings and files made before: their model would no longer be found."""
    before = read_bundle(bundle)
    after = add_to_bundle(bundle, {"gate.json": b"{}", "gate_index.npy": b"rows"})
    assert after.bundle_id == before.bundle_id
    assert after.read("gate_index.npy") == b"rows"
    assert {**after.sha256, **before.sha256} == after.sha256
    again = add_to_bundle(bundle, {"gate.json": b"[]"})
    assert again.read("gate.json") == b"[]"


def test_another_graph_is_another_model(bundle: Path) -> None:
    """Breaks for replay: an image would be said to come from graphs that did not make it."""
    before = read_bundle(bundle).bundle_id
    assert add_to_bundle(bundle, {"step.onnx": b"other"}).bundle_id != before


def test_damaged_files_are_not_signed(bundle: Path) -> None:
    """Breaks for safety: adding a gate would make a damaged file look right."""
    (bundle / CARD).write_text("changed")
    after = add_to_bundle(bundle, {"gate.json": b"{}"})
    with pytest.raises(MedvarError, match="sha256 differs"):
        after.read(CARD)


def test_a_full_disk_leaves_the_bundle_as_it_was(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for the only copy of a model."""
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files_module.os, "fsync", full)
    with pytest.raises(MedvarError, match="No space left"):
        add_to_bundle(bundle, {"gate.json": b"{}"})
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_folders_that_are_not_bundles_are_refused(tmp_path: Path) -> None:
    """Breaks for a mistyped folder, which would get files nobody asked for."""
    with pytest.raises(MedvarError, match=r"bundle\.json"):
        add_to_bundle(tmp_path, {"gate.json": b"{}"})
    assert list(tmp_path.iterdir()) == []
