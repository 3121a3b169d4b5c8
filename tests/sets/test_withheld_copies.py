"""Sets of a bundle that knows its training slices: what may be a copy is withheld or marked, and nothing else moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.data.shards import ShardFolder
from medvar_engine.errors import MedvarError
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.sets.layouts import set_format
from medvar_engine.sets.make_set import Resources, make_set
from medvar_engine.sets.mixture import Mixture
from medvar_engine.sets.set_manifest import SET, SetManifest
from medvar_engine.sets.to_slices import to_slices
from medvar_engine.types import FloatArray
from medvar_engine.write.provenance import read_about_pixels

MakeSet = Callable[..., SetManifest]


@pytest.fixture(scope="module")
def plain(bundle: Bundle, mixture: Mixture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of a bundle without a gate."""
    folder = tmp_path_factory.mktemp("plain") / "set"
    make_set(folder, mixture, 10, bundle, computing=Resources("cpu"), unit_images=4)
    return folder


@pytest.fixture(scope="module")
def knowing(plain: Path, gated: Callable[[Path, FloatArray], Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that takes images 3, 8 and 9 of the set for copies: all that is in the last unit."""
    images = ImageSet.open(plain)
    copies = np.stack([images[number].image for number in (3, 8, 9)])
    return read_bundle(gated(tmp_path_factory.mktemp("gated") / "bundle", copies))


def test_copies_are_withheld_and_listed(make: MakeSet, plain: Path, knowing: Bundle, tmp_path: Path) -> None:
    """Breaks for patients; and for whoever refers to image 4 of a set, which must stay image 4."""
    manifest = make(tmp_path / "set", bundle=knowing)
    assert manifest.withheld == {3, 8, 9}
    assert manifest.plan.identity != SetManifest.read(plain).plan.identity
    found, images = ImageSet.open(tmp_path / "set"), ImageSet.open(plain)
    found.verify()
    with pytest.raises(MedvarError, match=r"Image 3 .* withheld"):
        found[3]
    for number in (0, 1, 2, 4, 5, 6, 7):
        np.testing.assert_array_equal(found[number].image, images[number].image)
        assert found[number].trace.to_json() == images[number].trace.to_json()
    assert len(list(found)) == 7
    assert found.table()["number"].to_pylist() == [0, 1, 2, 4, 5, 6, 7]
    assert min(found.table()["distance"].to_pylist()) >= 0.01
    told = json.loads((tmp_path / "set" / SET).read_text())
    assert (told["images"], sum(told["counts"].values()), told["too_near"]) == (7, 7, [3, 8, 9])
    assert "# 7 synthetic images" in (tmp_path / "set" / "README.md").read_text()


def test_withholding_does_not_depend_on_batches_or_interruptions(
    make: MakeSet, knowing: Bundle, tmp_path: Path
) -> None:
    """Breaks for resumed and parallel work: two machines would withhold different images."""
    whole = make(tmp_path / "a", bundle=knowing, batch=1)
    make(tmp_path / "b", count=5, bundle=knowing, batch=3)
    grown = make(tmp_path / "b", bundle=knowing, batch=16)
    assert grown.flagged == whole.flagged
    for number in (0, 4, 7):
        one, other = (ImageSet.open(tmp_path / name)[number].image for name in "ab")
        np.testing.assert_array_equal(one, other)
    assert make(tmp_path / "a", bundle=knowing).flagged == whole.flagged


def test_flagged_images_are_written(make: MakeSet, knowing: Bundle, tmp_path: Path) -> None:
    """Breaks for those who study copies: they would be gone, or not to be told from the others."""
    manifest = make(tmp_path / "set", bundle=knowing, copy_policy="flag", kind=set_format("imagefolder", None))
    assert (manifest.withheld, manifest.flagged) == (frozenset(), {3, 8, 9})
    files = {int(path.stem): path for path in (tmp_path / "set" / "images").rglob("*.png")}
    assert sorted(files) == list(range(10))
    flagged = [number for number in files if read_about_pixels(files[number])["nearness"]["flagged"]]
    assert sorted(flagged) == [3, 8, 9]


def test_descriptions_count_the_written_images(make: MakeSet, knowing: Bundle, tmp_path: Path) -> None:
    """Breaks for readers of BIDS: subjects would be listed that have no files."""
    make(tmp_path / "bids", bundle=knowing, kind=set_format("bids", None))
    rows = (tmp_path / "bids" / "participants.tsv").read_text().splitlines()
    assert len(rows) == 1 + 7
    assert {row.split("\t")[0] for row in rows[1:]} == {path.name for path in (tmp_path / "bids").glob("sub-*")}


def test_withheld_images_do_not_become_slices(make: MakeSet, knowing: Bundle, tmp_path: Path) -> None:
    """Breaks for training on a set: rows and pixels would be out of step."""
    make(tmp_path / "set", bundle=knowing)
    to_slices(tmp_path / "set", tmp_path / "slices", knowing)
    rows = ShardFolder.open(tmp_path / "slices").table.to_pylist()
    assert [int(row["patient"][-1]) for row in rows] == [0, 1, 2, 4, 5, 6, 7]


def test_the_copy_policy_of_a_dataset_cannot_change(
    make: MakeSet, knowing: Bundle, bundle: Bundle, tmp_path: Path
) -> None:
    """Breaks for patients: half of a set would be checked, and its data card would say all."""
    make(tmp_path / "set", bundle=knowing)
    with pytest.raises(MedvarError, match=r"copy policy.* differ"):
        make(tmp_path / "set", bundle=knowing, copy_policy="off")
    with pytest.raises(MedvarError, match="medvar gate"):
        make(tmp_path / "other", bundle=bundle, copy_policy="withhold")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("layout", ["imagefolder", "bids"])
def test_withheld_images_leave_no_files_of_an_earlier_attempt(
    make: MakeSet, knowing: Bundle, tmp_path: Path, layout: str
) -> None:
    """On another device a distance may lie beyond the threshold: the folder would hold more than is listed."""
    folder, kind = tmp_path / "set", set_format(layout, None)

    def files() -> set[Path]:
        return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}

    make(tmp_path / "all", bundle=knowing, copy_policy="flag", kind=kind)
    make(folder, bundle=knowing, kind=kind)
    whole = files()
    shutil.copytree(tmp_path / "all", folder, ignore=shutil.ignore_patterns("units", SET), dirs_exist_ok=True)
    assert files() > whole
    shutil.rmtree(folder / "units")  # interrupted before the notes
    make(folder, bundle=knowing, kind=kind)
    assert files() == whole
