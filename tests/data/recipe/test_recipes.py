"""Every recipe on a small tree laid as the data set is: images are known, labels are left, other trees refused."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.series_identity import Identity, IdentityRules, identify
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.recipe.dataset_recipe import DatasetRecipe, match
from medvar_engine.data.recipe.file_patterns import Pattern
from medvar_engine.data.recipe.index_file import read_index
from medvar_engine.data.recipe.recipe_file import load_recipe, recipe_names
from medvar_engine.data.series_slices import slices_of
from medvar_engine.errors import MedvarError

KEY = Pseudonyms(bytes(32))


@dataclass(frozen=True)
class Image:
    """A file or a DICOM folder of a tree, and what it must be found to be."""

    path: str
    modality: str
    region: str
    patient: str
    contrast: str | None = None
    phases: int = 1
    echo: int = 1


@dataclass(frozen=True)
class Tree:
    images: list[Image]
    labels: list[str]
    dataset: str | None
    channels: tuple[str | None, ...] = ()


TREES = {
    "abdomenct-1k": Tree(
        [
            Image("Images/Case_00558_0000.nii.gz", "CT", "abdomen", "abdomenct-1k-00558"),
            Image("imagesTr/Case_00001_0000.nii.gz", "CT", "abdomen", "abdomenct-1k-00001"),
        ],
        ["Masks/Case_00558.nii.gz", "labels/Case_00001.nii.gz"],
        "abdomenct-1k",
    ),
    "amos": Tree(
        [
            Image("amos22/imagesTr/amos_0001.nii.gz", "CT", "abdomen", "amos-0001"),
            Image("amos22/imagesVa/amos_0499.nii.gz", "CT", "abdomen", "amos-0499"),
            Image("amos22/imagesTs/amos_0507.nii", "MR", "abdomen", "amos-0507"),
            Image("amos_unlabeled_ct_5000_5399/amos_5000.nii.gz", "CT", "abdomen", "amos-5000"),
            Image("amos22_unlabeled_6200_6899/amos_6899.nii.gz", "CT", "abdomen", "amos-6899"),
            Image("amos22_unlabeled_mri_7000_8199/amos_7000.nii.gz", "MR", "abdomen", "amos-7000"),
        ],
        ["amos22/labelsTr/amos_0001.nii.gz", "amos22/labelsVa/amos_0544.nii.gz"],
        "amos",
    ),
    "btcv": Tree(
        [Image("RawData/Training/img/img0001.nii.gz", "CT", "abdomen", "btcv-0001", "portal venous")],
        ["RawData/Training/label/label0001.nii.gz"],
        "btcv",
    ),
    "chaos": Tree(
        [
            Image("Train_Sets/CT/1/DICOM_anon", "CT", "abdomen", "chaos-ct-1", "portal venous"),
            Image("Train_Sets/MR/1/T1DUAL/DICOM_anon/InPhase", "MR", "abdomen", "chaos-mr-1", "T1 in phase", echo=2),
            Image("Train_Sets/MR/1/T1DUAL/DICOM_anon/OutPhase", "MR", "abdomen", "chaos-mr-1", "T1 out of phase"),
            Image("Test_Sets/MR/4/T2SPIR/DICOM_anon", "MR", "abdomen", "chaos-mr-4", "T2 SPIR"),
        ],
        [],
        "chaos",
    ),
    "kits23": Tree(
        [Image("kits23/dataset/case_00000/imaging.nii.gz", "CT", "abdomen", "kits-00000", "contrast-enhanced")],
        [
            "kits23/dataset/case_00000/segmentation.nii.gz",
            "kits23/dataset/case_00000/instances/kidney_instance-1_annotation-1.nii.gz",
        ],
        "kits23",
    ),
    "lits": Tree(
        [
            Image("Training Batch 1/volume-0.nii", "CT", "abdomen", "lits-0", "contrast-enhanced"),
            Image("LITS-Challenge-Test-Data/test-volume-0.nii", "CT", "abdomen", "lits-test-0", "contrast-enhanced"),
        ],
        ["Training Batch 1/segmentation-0.nii"],
        "lits",
    ),
    "msd-colon": Tree(
        [
            Image("Task10_Colon/imagesTr/colon_001.nii.gz", "CT", "abdomen", "msd-colon-001", "portal venous"),
            Image("Task10_Colon/imagesTs/colon_003.nii.gz", "CT", "abdomen", "msd-colon-003", "portal venous"),
        ],
        ["Task10_Colon/labelsTr/colon_001.nii.gz"],
        "msd-colon",
    ),
    "msd-spleen": Tree(
        [Image("Task09_Spleen/imagesTr/spleen_2.nii.gz", "CT", "abdomen", "msd-spleen-2", "portal venous")],
        ["Task09_Spleen/labelsTr/spleen_2.nii.gz"],
        "msd-spleen",
    ),
    "word": Tree(
        [Image("WORD-V0.1.0/imagesVal/word_0001.nii.gz", "CT", "abdomen", "word-0001")],
        ["WORD-V0.1.0/labelsVal/word_0001.nii.gz"],
        "word",
    ),
    "covid19": Tree(
        [
            Image("COVID-19-20_v2/Train/volume-covid19-A-0003_ct.nii.gz", "CT", "chest", "covid19-a-0003"),
            Image("COVID-19-20_v2/Train/volume-covid19-A-0047_1_ct.nii.gz", "CT", "chest", "covid19-a-0047"),
            Image("COVID-19-20_v2/Validation/volume-covid19-A-0451_ct.nii.gz", "CT", "chest", "covid19-a-0451"),
        ],
        ["COVID-19-20_v2/Train/volume-covid19-A-0003_seg.nii.gz"],
        "covid19",
    ),
    "segthor": Tree(
        [
            Image("train/Patient_01/Patient_01.nii.gz", "CT", "chest", "segthor-01"),
            Image("test/Patient_41.nii.gz", "CT", "chest", "segthor-41"),
        ],
        ["train/Patient_01/GT.nii.gz"],
        "segthor",
    ),
    "mmwhs": Tree(
        [
            Image("ct_train/ct_train_1001_image.nii.gz", "CT", "heart", "mmwhs-ct-1001", "angiography"),
            Image("mr_train/mr_train_1001_image.nii.gz", "MR", "heart", "mmwhs-mr-1001"),
            Image("mr_test/mr_test_2001_image.nii.gz", "MR", "heart", "mmwhs-mr-2001"),
        ],
        ["ct_train/ct_train_1001_label.nii.gz", "mr_train/mr_train_1001_label.nii.gz"],
        "mmwhs",
    ),
    "verse19": Tree(
        [
            Image("dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.nii.gz", "CT", "spine", "verse-004"),
            Image(
                "dataset-verse19training/rawdata/sub-verse400/sub-verse400_split-verse253_ct.nii.gz",
                "CT",
                "spine",
                "verse-400",
            ),
            Image("flat/verse012.nii.gz", "CT", "spine", "verse-012"),
        ],
        [
            "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz",
            "flat/verse012_seg.nii.gz",
        ],
        "verse19",
    ),
    "ctspine1k": Tree(
        [
            Image("data/COVID-19/volume-covid19-A-0003_ct.nii.gz", "CT", "spine", "covid19-a-0003"),
            Image("data/COVID-19/volume-covid19-A-0202_0_ct.nii.gz", "CT", "spine", "covid19-a-0202"),
            Image("data/liver/liver_0.nii.gz", "CT", "spine", "msd-liver-0"),
            Image("data/HNSCC-3DCT-RT_neck/HN_P001.nii.gz", "CT", "spine", "hnscc-P001"),
            Image(
                "data/colon/1.3.6.1.4.1.9328.50.4.0001.nii.gz", "CT", "spine", "colonography-1.3.6.1.4.1.9328.50.4.0001"
            ),
            Image("data/colon/CTC-1018399231.nii.gz", "CT", "spine", "colonography-CTC-1018399231"),
        ],
        ["label/liver/liver_0_seg.nii.gz"],
        "ctspine1k",
    ),
    "atlas": Tree(
        [Image("atlas-train-dataset-1.0.1/train/imagesTr/im0.nii.gz", "MR", "abdomen", "atlas-0", "T1 post-contrast")],
        ["atlas-train-dataset-1.0.1/train/labelsTr/lb0.nii.gz"],
        "atlas",
    ),
    "hcc": Tree(
        [
            Image("north/0001/t1.nii.gz", "MR", "abdomen", "north-0001", "T1"),
            Image("south/0001/portal.nii.gz", "MR", "abdomen", "south-0001", "T1 portal venous"),
        ],
        ["north/0001/tumour_mask.nii.gz"],
        "hcc",
    ),
    "brats": Tree(
        [
            Image(
                "2021/BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz", "MR", "brain", "brats2021_00000", "T1 post-contrast"
            ),
            Image("2021/BraTS2021_00000/BraTS2021_00000_flair.nii.gz", "MR", "brain", "brats2021_00000", "T2 FLAIR"),
            Image("2018/HGG/Brats18_2013_2_1/Brats18_2013_2_1_t2.nii.gz", "MR", "brain", "brats18_2013_2_1", "T2"),
            Image("2020/BraTS20_Training_001/BraTS20_Training_001_t1.nii", "MR", "brain", "brats20_Training_001", "T1"),
            Image("2023/BraTS-GLI-00005-001/BraTS-GLI-00005-001-t2w.nii.gz", "MR", "brain", "brats-GLI-00005", "T2"),
        ],
        [
            "2021/BraTS2021_00000/BraTS2021_00000_seg.nii.gz",
            "2023/BraTS-GLI-00005-001/BraTS-GLI-00005-001-seg.nii.gz",
        ],
        "brats",
    ),
    "acdc": Tree(
        [
            Image("database/training/patient001/patient001_frame01.nii.gz", "MR", "heart", "acdc-001", "cine"),
            Image("database/testing/patient101/patient101_frame14.nii.gz", "MR", "heart", "acdc-101", "cine"),
        ],
        [
            "database/training/patient001/patient001_frame01_gt.nii.gz",
            "database/training/patient001/patient001_4d.nii.gz",
        ],
        "acdc",
    ),
    "mnms": Tree(
        [Image("OpenDataset/Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz", "MR", "heart", "mnms-A0S9V9", "cine", phases=3)],
        ["OpenDataset/Training/Labeled/A0S9V9/A0S9V9_sa_gt.nii.gz"],
        "mnms",
    ),
    "msd-heart": Tree(
        [Image("Task02_Heart/imagesTr/la_003.nii.gz", "MR", "heart", "msd-heart-003")],
        ["Task02_Heart/labelsTr/la_003.nii.gz"],
        "msd-heart",
    ),
    "msd-prostate": Tree(
        [Image("Task05_Prostate/imagesTr/prostate_00.nii.gz", "MR", "prostate", "msd-prostate-00", "T2", phases=2)],
        ["Task05_Prostate/labelsTr/prostate_00.nii.gz"],
        "msd-prostate",
        channels=("T2", None),
    ),
    "prostate-multisite": Tree(
        [
            Image("RUNMC/Case00.nii.gz", "MR", "prostate", "RUNMC-00", "T2"),
            Image("ISBI_1.5/Case00.nii.gz", "MR", "prostate", "ISBI_1.5-00", "T2"),
            Image("HK/Case00.nii.gz", "MR", "prostate", "HK-00", "T2"),
        ],
        ["RUNMC/Case00_segmentation.nii.gz", "HK/Case00_Segmentation.nii.gz"],
        "prostate-multisite",
    ),
    "spider": Tree(
        [
            Image("images/1_t1.mha", "MR", "spine", "spider-1", "T1"),
            Image("images/1_t2_SPACE.mha", "MR", "spine", "spider-1", "T2 SPACE"),
        ],
        ["masks/1_t1.mha"],
        "spider",
    ),
    "bids": Tree(
        [
            Image("sub-01/anat/sub-01_T1w.nii.gz", "MR", "brain", "sub-01", "T1"),
            Image("sub-01/anat/sub-01_acq-fast_T2w.nii.gz", "MR", "brain", "sub-01", "T2"),
            Image("sub-02/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz", "MR", "brain", "sub-02", "T2 FLAIR"),
        ],
        ["derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", "sub-01/func/sub-01_task-rest_bold.nii.gz"],
        None,
    ),
    "template": Tree(
        [
            Image("0007/0007_pd.nii.gz", "MR", "knee", "knee-0007", "PD fat-saturated"),
            Image("hearts/a.nii.gz", "MR", "heart", "heart-a", "cine", phases=2),
        ],
        ["0007/0007_mask.nii.gz"],
        "my-set",
    ),
}

PAPER = {
    ("CT", "abdomen"): "abdomenct-1k amos btcv chaos kits23 lits msd-colon msd-spleen word",
    ("CT", "chest"): "covid19 segthor",
    ("CT", "heart"): "mmwhs",
    ("CT", "spine"): "verse19 ctspine1k",
    ("MR", "abdomen"): "amos atlas chaos hcc",
    ("MR", "brain"): "brats",
    ("MR", "heart"): "acdc mnms mmwhs msd-heart",
    ("MR", "prostate"): "msd-prostate prostate-multisite",
    ("MR", "spine"): "spider",
}


@pytest.fixture
def plant(nifti: Any, series: Any) -> Callable[[Path, Image], None]:
    """Write a tiny scan."""

    def write(folder: Path, image: Image) -> None:
        path = folder / image.path
        shape = (10, 12, 8, image.phases) if image.phases > 1 else (10, 12, 8)
        values = np.random.default_rng(0).integers(100, 900, shape).astype(np.int16)
        if image.path.endswith(".mha"):
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(values.T), str(path))
        elif ".nii" in image.path:
            nifti(path, values)
        else:
            # In-phase and out-of-phase of CHAOS share a series, and lie in two folders.
            uid = "1.2.3." + "".join(str(ord(letter)) for letter in image.path.replace("OutPhase", "InPhase"))[:50]
            rescale = {"RescaleSlope": 1, "RescaleIntercept": -500} if image.modality == "CT" else {}
            series(
                path, values, modality=image.modality, SeriesInstanceUID=uid, EchoNumbers=image.echo,
                PatientID="anonymous", **rescale,
            )  # fmt: skip

    return write


def plant_tree(folder: Path, tree: Tree, plant: Callable[[Path, Image], None], nifti: Any) -> None:
    for image in tree.images:
        plant(folder, image)
    for label in tree.labels:
        if label.endswith(".mha"):
            plant(folder, Image(label, "MR", "", ""))
        else:
            nifti(folder / label, np.random.default_rng(0).integers(0, 900, (10, 12, 8)).astype(np.int16))


def identities(source: Path, recipe: DatasetRecipe) -> dict[str, Identity]:
    """Path → identity of what is used."""
    found = {}
    for one in find_series(source)[0]:
        try:
            identity = identify(one, {}, source, IdentityRules(dataset_recipe=recipe, pseudonyms=KEY))
        except MedvarError:
            continue
        path = one.path.parent if one.is_dicom else one.path
        found[path.relative_to(source).as_posix()] = identity
    return found


@pytest.mark.parametrize("name", TREES)
def test_recipe_on_its_tree(name: str, tmp_path: Path, plant: Any, nifti: Any) -> None:
    """Breaks for whoever has downloaded the set: wrong people, windows of the wrong region, or labels for images."""
    tree, recipe = TREES[name], load_recipe(name)
    plant_tree(tmp_path, tree, plant, nifti)
    found = identities(tmp_path, recipe)
    assert sorted(found) == sorted(image.path for image in tree.images)
    for image in tree.images:
        identity = found[image.path]
        public = recipe.patient_ids == "public"
        assert identity.patient == (image.patient if public else KEY.patient(image.patient))
        assert (identity.modality, identity.region, identity.dataset) == (image.modality, image.region, tree.dataset)
        if not identity.channels:
            assert identity.contrast == image.contrast
        assert (identity.source, identity.licence) == (recipe.title, recipe.licence)
        assert not identity.patient_guessed
    assert tree.channels in ((), found[tree.images[0].path].channels)
    paths = [path for one in find_series(tmp_path)[0] for path in one.paths]
    assert match(recipe, paths, tmp_path)


def test_scans_recipe(tmp_path: Path, nifti: Any) -> None:
    """Breaks for the shipped model's data: ids of its index are public, and every slice counts."""
    values = np.random.default_rng(0).integers(100, 900, (10, 12, 8)).astype(np.int16)
    nifti(tmp_path / "a.nii.gz", values)
    nifti(tmp_path / "b.nii.gz", values)
    recipe = load_recipe("scans")
    with pytest.raises(MedvarError, match=r"needs .*index\.csv"):
        match(recipe, [tmp_path / "a.nii.gz"], tmp_path)
    (tmp_path / "index.csv").write_text("path,patient,modality,region,source\na.nii.gz,p1,MR,spine,Some Data\n")
    match(recipe, [tmp_path / "a.nii.gz"], tmp_path)
    known, unknown = find_series(tmp_path)[0]
    identity = identify(known, read_index(tmp_path), tmp_path, IdentityRules(dataset_recipe=recipe, pseudonyms=KEY))
    assert (identity.patient, identity.region, identity.series) == ("p1", "spine", "a.nii.gz")
    with pytest.raises(MedvarError, match=r"index\.csv does not list it"):
        identify(unknown, read_index(tmp_path), tmp_path, IdentityRules(dataset_recipe=recipe, pseudonyms=KEY))
    assert recipe.recipe().rules.duplicate_bits == 0
    assert recipe.recipe(duplicate_bits=4, size=None).rules.duplicate_bits == 4


@pytest.mark.parametrize("name", sorted({*recipe_names(), "template"} - {"scans", "slices"}))
def test_another_tree_is_refused(name: str, tmp_path: Path) -> None:
    """Breaks for the wrong folder: what was looked for, and what lies there instead, must be said."""
    paths = [tmp_path / "holiday" / f"image{number}.nii.gz" for number in range(9)]
    recipe = load_recipe(name)
    with pytest.raises(MedvarError) as caught:
        match(recipe, paths, tmp_path)
    text = str(caught.value)
    assert "does not look like" in text
    assert recipe.entries[0].files[0].text in text
    assert "holiday/image0.nii.gz" in text
    assert "image8" not in text
    with pytest.raises(MedvarError, match="found no images"):
        match(recipe, [], tmp_path)


def test_all_datasets_of_the_paper_have_recipes() -> None:
    """Breaks for reproducing the paper: each of its 26 entries has a recipe, and every recipe has a tree above."""
    entries = [(kind, name) for kind, names in PAPER.items() for name in names.split()]
    assert len(entries) == 26
    for (modality, region), name in entries:
        assert (modality, region) in {(one.modality, one.region) for one in load_recipe(name).entries}, name
    assert {*TREES, "scans", "slices"} - {"template"} == set(recipe_names())


@pytest.mark.parametrize("name", sorted({*recipe_names()} - {"bids", "hcc", "scans", "slices"}))
def test_facts_of_recipes_have_sources(name: str) -> None:
    """Breaks for whoever gives a model away: a licence that somebody guessed, or a layout that nobody has seen."""
    recipe = load_recipe(name)
    assert "layout" in recipe.sources
    assert "licence" in recipe.sources or "Licence not verified." in recipe.notes


def test_archive(tmp_path: Path, plant: Any, nifti: Any) -> None:
    """Breaks for whoever leaves downloads packed, or names a folder inside the set: the inner path says what it is."""
    plant_tree(tmp_path / "tree", TREES["amos"], plant, nifti)
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed" / "amos22.zip", "w") as archive:
        for path in (tmp_path / "tree").rglob("*.nii*"):
            archive.write(path, path.relative_to(tmp_path / "tree"))
    recipe = load_recipe("amos")
    found = identities(tmp_path / "packed", recipe)
    assert len(found) == 6
    assert found["amos22.zip!/amos22/imagesTr/amos_0001.nii.gz"].modality == "CT"
    inner = tmp_path / "tree/amos22/imagesTs"
    assert identities(inner, recipe)["amos_0507.nii"].patient == "amos-0507"


def test_channels_of_a_4d_file(tmp_path: Path, plant: Any) -> None:
    """Breaks for MSD Prostate: ADC taken for T2; or a file with other channels than were promised."""
    recipe = load_recipe("msd-prostate")
    plant(tmp_path, TREES["msd-prostate"].images[0])
    (one,) = find_series(tmp_path)[0]
    identity = identify(one, {}, tmp_path, IdentityRules(dataset_recipe=recipe))
    settings = recipe.recipe(size=32, min_side=4, max_anisotropy=10.0)
    facts = slices_of(one, identity, settings, tmp_path).facts
    assert {fact.contrast for fact in facts} == {"T2"}
    assert {fact.series for fact in facts} == {"Task05_Prostate/imagesTr/prostate_00.nii.gz phase 1 of 2"}
    plant(tmp_path / "three", Image("imagesTr/prostate_01.nii.gz", "MR", "prostate", "", phases=3))
    (other,) = find_series(tmp_path / "three")[0]
    with pytest.raises(MedvarError, match="2 channels are expected"):
        slices_of(other, identity, settings, tmp_path / "three")


def test_patterns() -> None:
    """Breaks for whoever writes a recipe: what * and {…} stand for."""
    assert Pattern("**/{a}/x_*.nii").parts(Path("deep/er/7/x_.nii")) == {"a": "7"}
    assert Pattern("{a}/x.nii.gz").parts(Path("1/X.NII")) == {"a": "1"}
    assert Pattern("{a}/x.nii").parts(Path("1/x.nii.gz")) is None
    assert Pattern("a.b").parts(Path("a-b")) is None
    assert Pattern("b.nii").parts(Path("ab.nii")) is None
    for text in ("", "/a", "a\\b", "{a", "a}", "{}", "{a b}"):
        with pytest.raises(MedvarError, match="pattern"):
            Pattern(text)


BASE: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "licence": "private",
    "patient_ids": "pseudonym",
    "entries": [{"modality": "MR", "region": "brain", "files": ["{p}.nii.gz"], "patient": "{p}"}],
}


def changed(field: str, value: Any) -> dict[str, Any]:
    """`BASE` with a field of it, or of its entry when the field begins with a dot, changed; None takes it away."""
    values: dict[str, Any] = {**BASE, "entries": [dict(BASE["entries"][0])]}
    where = values["entries"][0] if field.startswith(".") else values
    where[field.lstrip(".")] = value
    return {name: one for name, one in values.items() if one is not None}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("title", None, "line 1: Missing setting 'title'"),
        ("title", 5, "title must be a text, but is 5"),
        ("colour", "red", "Unknown setting 'colour'. The settings are name"),
        ("patient_ids", "secret", "patient_ids is one of public, pseudonym"),
        ("entries", [], "at least one kind of scan"),
        ("entries", "all", "entries must be a list, but is 'all'"),
        ("entries", [[]], r"entries\[0\] must be a list of fields"),
        ("index", True, "not both"),
        ("index", "yes", "index must be true or false"),
        (".modality", "PET", r"entries\[0\]\.modality: Unknown modality 'PET'"),
        (".files", [], "at least one entry"),
        (".files", ["{p"], r"files\[0\]: the pattern"),
        (".files", ["{q}.nii"], r"no part \{p\}"),
        (".patient", "everybody", "all patients would be one"),
        (".contrast", "{c}", r"no part \{c\}"),
        (".parts", {"p": [3]}, r"parts\.p: a named part is the first and the last number"),
        (".parts", {"p": [9, 1]}, "first and the last number"),
        (".parts", {"q": [1, 9]}, r"no part \{q\}"),
        (".use", ["T2"], "none of the channels"),
        (".channels", ["T2"], "use names the channels"),
        (".speed", 3, r"Unknown setting 'entries\[0\]\.speed'. The settings are modality"),
        ("harmonise", {"window": "fog"}, "harmonise: Unknown CT window 'fog'"),
        ("harmonise", {"brightness": 1}, "no setting 'brightness'"),
        ("sources", {"licence": ["a book"]}, r"sources\.licence\[0\]: it must be an address .* is 'a book'"),
        ("sources", {"licence": ["https://example.org"]}, "give both, or neither"),
        ("verified", "2026-02-30", "verified: it must be a day such as 2026-01-31, but is '2026-02-30'"),
        ("verified", datetime.date(2026, 1, 31), "give both, or neither"),
        ("ignore", ["a"], "ignore: it must be a list of fields"),
        ("ignore", {"{": "why"}, "ignore: the pattern"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, field: str, value: Any, said: str) -> None:
    """Breaks for whoever writes a recipe: the file, the field, and what is expected there must be named."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed(field, value)))
    with pytest.raises(MedvarError, match=said) as caught:
        load_recipe(path)
    assert "mine.yaml" in str(caught.value)


def test_the_line_of_harmonise(tmp_path: Path) -> None:
    """Breaks for whoever looks for the mistake in line 1."""
    path = tmp_path / "mine.yaml"
    lines = yaml.safe_dump(changed("harmonise", {"window": "fog"}), sort_keys=False).splitlines()
    path.write_text("\n".join(lines))
    number = lines.index("harmonise:") + 1
    assert number > 1
    with pytest.raises(MedvarError, match=rf"line {number}: harmonise: Unknown CT window 'fog'"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "cannot be read"),
        ("name: a\nname: b\n", "line 2: the field name is repeated"),
        ("- a\n", "fields and values"),
        ("", "fields and values"),
        ("name: !!python/object/apply:os.system [exit]\n", "cannot be read"),
        ("x: " + "[" * 3_000, "cannot be read"),
        ("x" * 70_000, "too large"),
    ],
)
def test_files_that_are_not_recipes_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """Breaks for recipes of strangers: no code is run, nothing is guessed, and nothing grows without end."""
    path = tmp_path / "theirs.yaml"
    path.write_text(text)
    with pytest.raises(MedvarError, match=said):
        load_recipe(str(path))


def test_an_unknown_recipe_is_reported(tmp_path: Path) -> None:
    """Breaks for typing errors: the names that exist must be told."""
    with pytest.raises(MedvarError, match=r"no recipe 'amoss'.*amos, "):
        load_recipe("amoss")
    with pytest.raises(MedvarError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(MedvarError, match="no recipe"):
        load_recipe("../prepare")


def test_text_in_a_recipe_is_not_executed(tmp_path: Path, plant: Any) -> None:
    """Breaks for recipes of strangers: a format string must not reach into objects."""
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(changed(".patient", "{p}{p.__class__}")))
    recipe = load_recipe(path)
    found = recipe.match(Path("a.nii.gz"))
    assert found is not None
    assert found.patient == "a{p.__class__}"
