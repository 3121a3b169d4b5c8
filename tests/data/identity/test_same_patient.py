"""One person under several names, keys or ids is on one side of the split, and nothing that was written says who."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from medvar_engine.data.duplicates.fingerprint import fingerprint
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.same_patient import SamePatient, marks_of, plain_spelling, plain_uid
from medvar_engine.data.prepare import prepare
from medvar_engine.data.shards import MANIFEST, Manifest, ShardWriter, append, merge, resplit, verify
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.split import SplitRule, split_patients
from medvar_engine.data.survey import ScanRules
from medvar_engine.errors import MedvarError
from medvar_engine.storage import replace_file
from medvar_engine.value_range import encode

ONE, OTHER = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)
RECIPE = Recipe(size=32)


def scan(folder: Path, name: str, seed: int, nifti: Any, **how: Any) -> None:
    """Smooth noise, another one for each seed."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(48, 46, 44)), 4)
    array = 600 + 400 * noise / np.abs(noise).max()
    nifti(folder / f"{name}.nii.gz", array.astype(np.int16), **how)


def prepared(source: Path, out: Path, *, pseudonyms: Pseudonyms | None = None, **how: Any) -> Manifest:
    return prepare(source, out, RECIPE, ScanRules(modality="MR", region="brain", pseudonyms=pseudonyms), **how)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Doe^Jane", "DOE^JANE", True),
        (" Doe^Jane", "Doe^ Jane ", True),
        ("007", "7", True),
        ("P-0012", "p-12", True),
        ("M\u00fcller", "Mu\u0308ller", True),
        ("\uff21\uff11", "A1", True),
        ("zero\u200bwidth", "zerowidth", True),
        ("100", "1", False),
        ("1-2", "12", False),
        ("a", "b", False),
    ],
)
def test_spellings(first: str, second: str, same: bool) -> None:
    """Breaks for typed names: one patient in training and in test."""
    assert (plain_spelling(first) == plain_spelling(second)) == same


def test_uids() -> None:
    """Breaks for files that are called alike in two data sets: they would be taken for one series."""
    assert plain_uid("1.2.840.10008#2") == plain_uid("1.2.840.10008\0") == "1.2.840.10008"
    assert plain_uid("img/001.nii.gz") is plain_uid("7") is None


def test_marks_reveal_no_names() -> None:
    """Breaks for privacy: without the key nobody may find the name, and one key's marks say nothing to another's."""
    names = " doe^jane", "DOE^JANE"
    assert marks_of(names[0], [], ONE) == marks_of(names[1], [], ONE) != marks_of(names[0], [], OTHER)
    assert marks_of("1.2.3", [], ONE) != marks_of("", ["1.2.3"], ONE)[1:]
    assert not any("doe" in mark for mark in marks_of(names[0], [], ONE))


def test_names_are_joined_through_others() -> None:
    """Breaks for chains: a is b and b is c, so c may not be tested while a is trained on."""
    same = SamePatient([("d", "c"), ("a", "b"), ("e", "f")])
    same.join("b", "c")
    assert same.groups() == [("a", "b", "c", "d"), ("e", "f")]
    assert same.first("g") == "g"


@pytest.mark.parametrize("seed", range(6))
def test_a_group_is_drawn_together(seed: int) -> None:
    """Breaks for the split: whatever is drawn, one patient's names go together, and about the share asked for."""
    strata = {f"p{n}": {("CT", "chest")} for n in range(30)}
    groups = [("p0", "p1", "p2"), ("p7", "p29")]
    split, _ = split_patients(strata, test_fraction=0.4, seed=seed, same=groups)
    assert all(len({split[name] for name in names}) == 1 for names in groups)
    assert sorted(split) == sorted(strata)
    held, _ = split_patients(strata, holdout=["p29"], same=groups)
    assert sorted(name for name, side in held.items() if side == "test") == ["p29", "p7"]
    known, _ = split_patients(strata, test_fraction=0, known={"p0": "train", "p1": "test"}, same=groups)
    assert {known[name] for name in groups[0]} == {"test"}


@pytest.mark.parametrize("pseudonyms", [None, ONE])
def test_one_patient_in_several_spellings(tmp_path: Path, nifti: Any, pseudonyms: Pseudonyms | None) -> None:
    """Breaks for files named by hand: pseudonyms would hide that two of them are one patient."""
    names = ["Jane 01", "jane1", "JANE 1 ", "joe", "jim", "eve"]
    for seed, name in enumerate(names):
        scan(tmp_path / "in" / f"sub-{name}", f"scan{seed}", seed, nifti)
    for seed in range(4):
        rule = SplitRule(0.5, seed)
        manifest = prepared(tmp_path / "in", tmp_path / "out", pseudonyms=pseudonyms, split=rule, overwrite=True)
        ((*group,),) = manifest.one_patient
        assert len(group) == 3
        assert len({manifest.split[name] for name in group}) == 1
        assert any("one patient" in remark for remark in manifest.remarks)
        verify(tmp_path / "out")
    text = (tmp_path / "out" / MANIFEST).read_text().lower()
    assert ("jane" in text) == (pseudonyms is None)
    assert not (pseudonyms and "joe" in text)


@pytest.mark.parametrize("what", ["series", "pixels"])
def test_one_series_or_one_scan_under_two_ids(tmp_path: Path, series: Any, phantom: np.ndarray, what: str) -> None:
    """Breaks for a scan that was sent twice: corrected ids leave the old copy with the old one."""
    other = np.random.default_rng(1).permutation(phantom.ravel()).reshape(phantom.shape)
    smooth = (ndimage.gaussian_filter(other.astype(np.float32), 4) * 2 % 1400).astype(np.int16)
    for number, (patient, array) in enumerate([("a", phantom), ("b", smooth if what == "series" else phantom)]):
        uid = "1.2.3.4" if what == "series" else f"1.2.3.{number + 4}"
        tags = {"PatientID": patient, "SeriesInstanceUID": uid}
        series(tmp_path / "in" / patient, array, BodyPartExamined="BRAIN", **tags)
    manifest = prepare(tmp_path / "in", tmp_path / "out", RECIPE, ScanRules(pseudonyms=ONE), split=SplitRule(0.5))
    assert manifest.one_patient == [sorted(ONE.patient(name) for name in "ab")]
    assert set(manifest.split.values()) == {"train"}


def test_other_keys_and_public_names_do_not_mix(tmp_path: Path, nifti: Any) -> None:
    """Breaks for folders of two hospitals, or of two afternoons: one patient would be in training and in test."""
    for seed, name in enumerate(("ann", "bob", "eve")):
        scan(tmp_path / "in", name, seed, nifti)
        scan(tmp_path / "later", name, seed + 10, nifti)
    split = SplitRule(holdout=("ann",))
    folders = {name: tmp_path / name for name in ("one", "other", "public")}
    for name, pseudonyms in (("one", ONE), ("other", OTHER), ("public", None)):
        prepared(tmp_path / "in", folders[name], pseudonyms=pseudonyms, split=split)
    later = {name: tmp_path / f"later-{name}" for name in folders}
    for name, pseudonyms in (("one", ONE), ("other", OTHER), ("public", None)):
        prepared(tmp_path / "later", later[name], pseudonyms=pseudonyms, split=SplitRule(holdout=("bob",)))
    before = {name: (path / MANIFEST).read_bytes() for name, path in folders.items()}
    for first, second in (("one", "other"), ("other", "one"), ("one", "public"), ("public", "one")):
        for key in (None, OTHER if "one" in (first, second) else ONE):
            with pytest.raises(MedvarError, match="--key"):
                merge([folders[first], later[second]], tmp_path / "out", pseudonyms=key)
            with pytest.raises(MedvarError, match="--key"):
                append(folders[first], later[second], pseudonyms=key)
    assert {name: (path / MANIFEST).read_bytes() for name, path in folders.items()} == before
    # Who has the key can compare them.
    manifest = merge([folders["one"], later["public"]], tmp_path / "both", pseudonyms=ONE)
    pairs = sorted(sorted([name, ONE.patient(name)]) for name in ("ann", "bob", "eve"))
    assert sorted(map(sorted, manifest.one_patient)) == pairs
    tested = {name for name, side in manifest.split.items() if side == "test"}
    assert tested == {"ann", "bob", ONE.patient("ann"), ONE.patient("bob")}
    verify(tmp_path / "both")
    resplit(tmp_path / "both", SplitRule(0.5, 3))
    verify(tmp_path / "both")
    assert len({Manifest.read(tmp_path / "both").split[name] for name in ("eve", ONE.patient("eve"))}) == 1


def test_keys_of_older_folders_are_read_from_their_remark(tmp_path: Path, nifti: Any) -> None:
    """Breaks for slices that were prepared by an older version: their key stood in a remark alone."""
    scan(tmp_path / "in", "ann", 0, nifti)
    scan(tmp_path / "later", "bob", 1, nifti)
    prepared(tmp_path / "in", tmp_path / "one", pseudonyms=ONE)
    values = json.loads((tmp_path / "one" / MANIFEST).read_text())
    for name in ("patient_ids", "marks", "one_patient"):
        del values[name]
    replace_file(tmp_path / "one" / MANIFEST, json.dumps(values).encode())
    prepared(tmp_path / "later", tmp_path / "other", pseudonyms=OTHER)
    with pytest.raises(MedvarError, match="different keys"):
        merge([tmp_path / "one", tmp_path / "other"], tmp_path / "out")


def random_image(seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(64, 64)), 5)
    return np.clip(noise / np.abs(noise).max(), -1, 1).astype(np.float32)


def written(folder: Path, slices: dict[str, np.ndarray], tested: set[str]) -> Path:
    with ShardWriter(folder, 64) as writer:
        for name, image in slices.items():
            about = (name, "MR", "brain", "axial", None, None, 1.0, 0.0, 1.0, "arbitrary", None, name, "us", "MIT")
            writer.add(encode(image)[None], [SliceFacts(*about, fingerprint(image))])
        writer.finish({name: "test" if name in tested else "train" for name in slices})
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: np.clip(image * 0.8 + 0.1, -1, 1),
        lambda image: image + np.random.default_rng(0).normal(0, 0.005, image.shape).astype(np.float32),
    ],
)
def test_verify_finds_near_identical_slices_on_both_sides(tmp_path: Path, change: Any) -> None:
    """Breaks for evaluation: what is measured on slices that were trained on is too good, and nobody was told."""
    slices = {"ann": random_image(1), "bob": random_image(2), "eve": change(random_image(1))}
    folder = written(tmp_path / "a", slices, {"eve"})
    with pytest.raises(MedvarError, match="ann = eve"):
        verify(folder)
    resplit(folder, SplitRule(holdout=("eve",)))
    assert verify(folder).split == {"ann": "test", "bob": "train", "eve": "test"}
    alone = written(tmp_path / "b", {"ann2": random_image(3), "eve2": change(random_image(2))}, {"eve2"})
    manifest = merge([folder, alone], tmp_path / "both")
    assert manifest.split["bob"] == manifest.split["eve2"] == "test"
    verify(tmp_path / "both")
    assert append(folder, alone).split["bob"] == "train"
    verify(folder)


def test_verify_finds_spellings_on_both_sides(tmp_path: Path) -> None:
    """Breaks for folders of before: they were split by the letters of names."""
    with pytest.raises(MedvarError, match="Ann 1 = ann01"):
        verify(written(tmp_path / "a", {"Ann 1": random_image(1), "ann01": random_image(2)}, {"ann01"}))
