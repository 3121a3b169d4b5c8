"""`medvar gate`, and what `medvar generate` does with images that may be copies."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.generate.generator import Generator
from medvar_engine.memorisation.screen import CopyScreen
from medvar_engine.memorisation.training_index import FILES
from medvar_engine.request import Request
from medvar_engine.types import FloatArray
from medvar_engine.write.provenance import read_about_pixels

Medvar = Callable[..., Any]
CHEST = ("--modality", "CT", "--region", "chest", "--device", "cpu")


@pytest.fixture(scope="module")
def knowing(
    gated: Callable[[Path, FloatArray], Path],
    tiny_bundle: Path,
    tiny_onnx: OnnxBackend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle that takes the chest of seed 1 for a copy."""
    generator = Generator(tiny_onnx)
    request = Request(Condition("CT", "chest"), 1, read_bundle(tiny_bundle).sampling)
    image = generator.image(generator.finish(generator.start([request])))
    return gated(tmp_path_factory.mktemp("gated") / "knowing", image)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_copies_are_withheld_by_default(medvar: Medvar, knowing: Path, tmp_path: Path) -> None:
    """Breaks for patients: a training slice would be handed out as nobody's."""
    run = medvar("generate", "--bundle", knowing, *CHEST, "--count", 3, "--out", tmp_path / "out", "--show-scales")
    assert run.code == 0, run.err
    assert not any("seed1" in name for name in names(tmp_path / "out"))
    assert len(names(tmp_path / "out")) == 4
    assert "withheld: ct-chest-seed1.png" in run.err
    assert "distance of 0." in run.err
    assert "ann" not in run.err.replace("than", "")


def test_withholding_does_not_depend_on_other_images(medvar: Medvar, knowing: Path, tmp_path: Path) -> None:
    """Breaks for resumed and parallel work, whose results would differ."""
    for batch in (1, 3):
        run = medvar(
            "generate", "--bundle", knowing, *CHEST, "--count", 3, "--batch", batch, "--out", tmp_path / str(batch)
        )
        assert run.code == 0
    assert names(tmp_path / "1") == names(tmp_path / "3")
    for name in names(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


@pytest.mark.parametrize("form", ["png", "png16", "nifti", "dicom"])
def test_flagged_copies_are_marked_in_their_files(medvar: Medvar, knowing: Path, tmp_path: Path, form: str) -> None:
    """Breaks for whoever gets the file: that it may be a copy would be known only to whoever made it."""
    run = medvar(
        "generate",
        "--bundle",
        knowing,
        *CHEST,
        "--count",
        2,
        "--copy-policy",
        "flag",
        "--format",
        form,
        "--out",
        tmp_path,
    )
    assert run.code == 0, run.err
    assert "flagged: ct-chest-seed1" in run.err
    files = [Path(line) for line in run.lines if not line.endswith(".json")]
    flags = [read_about_pixels(file)["nearness"]["flagged"] for file in files]
    assert flags == [False, True]
    said = [
        b"MEMORISED?" in (file.with_suffix("").with_suffix(".json") if form == "nifti" else file).read_bytes()
        for file in files
    ]
    assert said == flags
    assert "MAY BE A COPY" in medvar("info", files[1]).out


def test_if_all_images_are_withheld_nothing_is_written(medvar: Medvar, knowing: Path, tmp_path: Path) -> None:
    """Breaks for scripts, which would go on with an empty folder."""
    run = medvar("generate", "--bundle", knowing, *CHEST, "--seed", 1, "--out", tmp_path)
    assert run.code == 1
    assert "Nothing was written" in run.err
    assert names(tmp_path) == []
    allowed = medvar("generate", "--bundle", knowing, *CHEST, "--seed", 1, "--out", tmp_path, "--copy-policy", "off")
    assert allowed.code == 0
    assert "nearness" not in read_about_pixels(tmp_path / "ct-chest-seed1.png")


def test_a_bundle_without_an_index_cannot_withhold(medvar: Medvar, tiny_bundle: Path, tmp_path: Path) -> None:
    """Breaks for trust: who asks for copies to be withheld must not believe that they were."""
    run = medvar("generate", "--bundle", tiny_bundle, *CHEST, "--copy-policy", "withhold", "--out", tmp_path)
    assert run.code == 1
    assert "medvar gate" in run.err
    assert names(tmp_path) == []


def test_info_about_the_index_needs_no_runtime(medvar: Medvar, knowing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for a bare installation: it could not even say what the bundle is."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run = medvar("info", knowing)
    assert (run.code, "training slices are known" in run.out) == (0, True), run.err


def test_a_damaged_gate_stops_generation(medvar: Medvar, knowing: Path, tmp_path: Path) -> None:
    """Breaks for patients: a gate that cannot be read would let everything pass."""
    bundle = shutil.copytree(knowing, tmp_path / "bundle")
    (bundle / "gate_index.npy").write_bytes(b"")
    run = medvar("generate", "--bundle", bundle, *CHEST, "--out", tmp_path / "out")
    assert run.code == 1
    assert "gate_index.npy" in run.err
    assert not (tmp_path / "out").exists()


def test_a_set_lists_what_it_withholds(medvar: Medvar, knowing: Path, tmp_path: Path) -> None:
    """Breaks for reproduction: which number is which image must not depend on what is withheld."""
    run = medvar(
        "generate", "--bundle", knowing, *CHEST, "--count", 3, "--layout", "imagefolder", "--out", tmp_path / "set"
    )
    assert run.code == 0, run.err
    assert "1  withheld" in run.err
    assert names(next((tmp_path / "set" / "images").iterdir())) == ["00000000.png", "00000002.png"]


def test_burned_in_and_made_again(medvar: Medvar, knowing: Path, tmp_path: Path) -> None:
    """Breaks for small images: a mark that cannot be read would be promised."""
    run = medvar("generate", "--bundle", knowing, *CHEST, "--burn-in", "--out", tmp_path / "out")
    assert run.code == 1
    assert "57×11" in run.err
    run = medvar("generate", "--bundle", knowing, *CHEST, "--burn-in", "--format", "shards", "--out", tmp_path / "set")
    assert run.code == 1
    assert "--layout" in run.err


def test_a_gate_is_added_to_a_bundle(
    medvar: Medvar, tiny_bundle: Path, prepared: Callable[..., Path], tmp_path: Path
) -> None:
    """Breaks for owners of a model: the one command that makes its copies known."""
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "ct3", "mr1", "mr2", "mr3"], size=16)
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    before = read_bundle(bundle)
    run = medvar("gate", bundle, "--data", data)
    assert run.code == 0, run.err
    assert run.lines == [str(bundle)]
    assert "copies found" in run.err
    assert "trained on 160 slices" in run.err
    after = read_bundle(bundle)
    assert set(after.sha256) == {*before.sha256, *FILES}
    assert after.bundle_id == before.bundle_id
    gate = CopyScreen.of(after).gate
    assert gate is not None
    assert gate.risk(np.full((16, 16), -1, np.float32)).distance <= 2
    assert not any(b"ct1" in (bundle / name).read_bytes() for name in FILES)
    shown = medvar("info", bundle)
    assert "copies" in shown.out


def test_slices_of_another_size(
    medvar: Medvar, tiny_bundle: Path, prepared: Callable[..., Path], tmp_path: Path
) -> None:
    """Breaks after minutes of training, where it could at once."""
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "ct3", "ct4"])
    run = medvar("gate", tiny_bundle, "--data", data)
    assert run.code == 1
    assert "8 pixels per side" in run.err
