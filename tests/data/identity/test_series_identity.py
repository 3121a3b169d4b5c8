"""Who is who: what goes before what, what contradicts what, and that no name passes where pseudonyms are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.series_identity import IdentityRules, identify
from medvar_engine.data.read.scans import Series, find_series
from medvar_engine.data.recipe.dataset_recipe import DatasetRecipe, Entry
from medvar_engine.data.recipe.file_patterns import Pattern
from medvar_engine.data.recipe.index_file import IndexRow, find_row, read_index
from medvar_engine.data.series_slices import slices_of
from medvar_engine.errors import MedvarError

KEY = Pseudonyms(bytes(32))
ENTRY = Entry("MR", "heart", (Pattern("{who}/{scan}.nii.gz"),), "person-{who}")
RECIPE = DatasetRecipe(
    name="mine", title="My Set", licence="MIT", patient_ids="pseudonym", entries=(ENTRY,), dataset="mine"
)
FILE = Series("x", (Path("/data/doe_jane/t1.nii.gz"),), None, None, None, patient_guessed=True)
DICOM = Series("1.2.840.9", (Path("/data/doe_jane/1.dcm"),), "CT", "chest", "DOE^JANE")


def test_index_before_recipe_before_header(tmp_path: Path) -> None:
    """Breaks for whoever corrects a recipe by an index, or a region by an option."""
    path = tmp_path / "doe" / "t1.nii.gz"
    path.parent.mkdir()
    path.touch()
    (tmp_path / "index.csv").write_text("path,patient,modality,region,contrast\ndoe,p1,MR,knee,T2\n")
    one = replace(FILE, paths=(path,))
    by_recipe = identify(one, {}, tmp_path, IdentityRules(dataset_recipe=RECIPE, pseudonyms=KEY))
    assert (by_recipe.region, by_recipe.contrast, by_recipe.dataset) == ("heart", None, "mine")
    assert by_recipe.patient == KEY.patient("person-doe")
    by_index = identify(one, read_index(tmp_path), tmp_path, IdentityRules(dataset_recipe=RECIPE, pseudonyms=KEY))
    assert (by_index.region, by_index.contrast, by_index.dataset) == ("knee", "T2", "mine")
    assert by_index.patient == KEY.patient("p1")
    assert (
        identify(one, {}, tmp_path, IdentityRules(dataset_recipe=RECIPE, pseudonyms=KEY, region="Left Knee")).region
        == "left-knee"
    )
    assert (
        identify(one, {}, tmp_path, IdentityRules(dataset_recipe=RECIPE, pseudonyms=KEY, licence="x")).licence == "MIT"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modality": "MR"}, "the argument says MR, but the DICOM header says CT"),
        (
            {"dataset_recipe": replace(RECIPE, entries=(replace(ENTRY, files=(Pattern("{who}/*"),)),))},
            "recipe mine says MR",
        ),
        ({"dataset_recipe": RECIPE}, "does not describe it"),
        ({"dataset_recipe": replace(RECIPE, ignore=((Pattern("*.dcm"), "a dose map"),))}, "leaves it out: a dose map"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], said: str) -> None:
    """Breaks for slips in recipes and options: MR windows on CT, silently."""
    with pytest.raises(MedvarError, match=said):
        identify(DICOM, {}, Path("/data"), IdentityRules(pseudonyms=KEY, **options))


def test_contradictory_files_of_one_series_are_refused() -> None:
    """Breaks for two patients whose files share a series UID: they must not become one scan."""
    recipe = replace(RECIPE, entries=(replace(ENTRY, modality="CT", files=(Pattern("{who}/*"),)),))
    two = replace(DICOM, paths=(Path("/data/a/1.dcm"), Path("/data/b/1.dcm")))
    with pytest.raises(MedvarError, match="differently"):
        identify(two, {}, Path("/data"), IdentityRules(dataset_recipe=recipe, pseudonyms=KEY))


def test_recipe_with_private_patients_needs_a_key() -> None:
    """Breaks for privacy: a recipe that asks for pseudonyms must never write names for want of a key."""
    with pytest.raises(MedvarError, match="a key is needed"):
        identify(FILE, {}, Path("/data"), IdentityRules(dataset_recipe=RECIPE))
    public = replace(RECIPE, patient_ids="public")
    assert (
        identify(FILE, {}, Path("/data"), IdentityRules(dataset_recipe=public, pseudonyms=KEY)).patient
        == "person-doe_jane"
    )


def test_no_name_in_the_facts(tmp_path: Path, series: Any, nifti: Any) -> None:
    """Breaks for patients: names in headers, file names and the name of the folder must not reach the shards."""
    values = np.random.default_rng(0).integers(100, 900, (10, 12, 8)).astype(np.int16)
    source = tmp_path / "doe_jane"
    series(source / "dicom", values, PatientID="DOE^JANE", PatientName="Doe^Jane", BodyPartExamined="KNEE")
    nifti(source / "doe_jane_t1.nii.gz", values)
    found = find_series(source)[0]
    assert len(found) == 2
    for one in found:
        identity = identify(one, {}, source, IdentityRules(modality="MR", region="knee", pseudonyms=KEY))
        facts = slices_of(one, identity, Recipe.of(size=32, min_side=4, max_anisotropy=10.0), source).facts
        for fact in facts:
            text = str(fact).lower()
            assert "doe" not in text
            assert "1.2.3.4" not in text
            assert fact.patient.startswith("p-")
            assert fact.series.startswith("s-")
            assert fact.source == "not stated"
    named = identify(found[0], {}, source, IdentityRules(modality="MR", region="knee"))
    assert named.source == "doe_jane"


def test_index_names_archives() -> None:
    """Breaks for archives in an index: its writer names the archive as the folder shows it."""
    row, inner = (IndexRow(path, "p", "MR", "brain", "", "", "") for path in ("study.zip", "study.zip!/a/b.dcm"))
    index = {row.path: row, inner.path: inner}
    assert find_row(index, Path("/data"), Path("/data/study.zip!/a/c.dcm")) == row
    assert find_row(index, Path("/data"), Path("/data/study.zip!/a/b.dcm")) == inner
    assert find_row(index, Path("/data"), Path("/data/study.zip2/a")) is None
