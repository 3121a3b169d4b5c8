"""`prepare` with label maps: layouts of the large data sets, and whatever may be wrong with a label map."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.masks.mask_rule import mask_rule
from medvar_engine.data.prepare import prepare
from medvar_engine.data.shards import append, merge, verify
from medvar_engine.data.survey import ScanRules
from medvar_engine.errors import MedvarError

NAMES = ScanRules(modality="CT", region="abdomen")
RECIPE = Recipe.of(size=64, planes=["axial"], window=(-160, 240), min_side=20)
SHAPE = (48, 40, 12)
AFFINE = np.array([[1.5, 0, 0, -30], [0, 1.5, 0, 12], [0, 0, 3, 100], [0, 0, 0, 1.0]])


def body(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """HU (X, Y, Z) of a body with a bright block to the right and a dark one to the left, and their labels 1 and 2."""
    scan = np.random.default_rng(seed).integers(-20, 20, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[30:40, 10 + seed : 20 + seed, 3:9], labels[8:14, 20:26, 2:10] = 1, 2
    scan[labels == 1], scan[labels == 2], scan[:3] = 200, -100, -1000
    return scan, labels


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, codes: str = "RAS") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(tuple(codes))
    )
    nibabel.save(image.as_reoriented(turn), path)
    return path


@pytest.fixture
def totalsegmentator(tmp_path: Path) -> Path:
    """Three cases; an organ that only one has, one that nobody has, and label maps stored the other way round."""
    for seed in range(3):
        scan, labels = body(seed)
        case = tmp_path / "scans" / f"s{seed:04d}"
        save(case / "ct.nii.gz", scan)
        save(case / "segmentations" / "spleen.nii.gz", (labels == 1).astype(np.uint8), codes="LPS")
        save(case / "segmentations" / "liver.nii.gz", (labels == 2).astype(np.uint8))
        save(case / "segmentations" / "heart.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    return tmp_path / "scans"


@pytest.fixture
def msd(tmp_path: Path) -> Path:
    """Two cases as in the Medical Segmentation Decathlon."""
    for seed in range(2):
        scan, labels = body(seed)
        save(tmp_path / "msd" / "imagesTr" / f"spleen_{seed}.nii.gz", scan)
        save(tmp_path / "msd" / "labelsTr" / f"spleen_{seed}.nii.gz", labels)
    names = {"0": "background", "1": "spleen", "2": "liver"}
    (tmp_path / "msd" / "dataset.json").write_text(json.dumps({"name": "Spleen", "labels": names}))
    return tmp_path / "msd"


def pairs(folder: Path) -> tuple[np.ndarray, np.ndarray, SliceDataset]:
    """Images in HU (N, H, W), masks, and the data set."""
    dataset = SliceDataset(folder)
    images = (dataset.batch(range(len(dataset)))[:, 0] + 1) * 200 - 160
    return images, dataset.masks(range(len(dataset))), dataset


def check_pairs(folder: Path, bright: str, dark: str) -> None:
    """Where the mask shows a structure, the image has its HU."""
    images, masks, dataset = pairs(folder)
    names = [one.name for one in dataset.structures]
    assert masks.shape == images.shape
    assert np.median(images[masks == names.index(bright) + 1]) == pytest.approx(200, abs=10)
    assert np.median(images[masks == names.index(dark) + 1]) == pytest.approx(-100, abs=10)
    assert (images[masks == 0] > 150).mean() < 0.02
    verify(folder)


def test_totalsegmentator(totalsegmentator: Path, tmp_path: Path) -> None:
    """One file of each organ, in whatever order its axes are stored; cases are patients."""
    manifest = prepare(totalsegmentator, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("totalsegmentator")))
    check_pairs(tmp_path / "out", "spleen", "liver")
    assert [one["name"] for one in manifest.structures] == ["heart", "liver", "spleen"]
    assert len({one["colour"] for one in manifest.structures}) == 3
    assert set(manifest.split) == {"s0000", "s0001", "s0002"}
    assert not manifest.refused  # label maps are no scans that were left out


def test_decathlon_and_nnunet(msd: Path, tmp_path: Path) -> None:
    """One label map of each case, named by dataset.json as either version of it is written."""
    prepare(msd, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("msd")))
    check_pairs(tmp_path / "out", "spleen", "liver")
    for path in (msd / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    (msd / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "spleen": 1, "liver": 2}}))
    prepare(msd, tmp_path / "nnunet", RECIPE, replace(NAMES, masks=mask_rule("nnunet")))
    check_pairs(tmp_path / "nnunet", "spleen", "liver")
    assert set(SliceDataset(tmp_path / "nnunet").manifest.split) == {"spleen_0", "spleen_1"}


def test_layouts_and_tables_of_the_user(msd: Path, tmp_path: Path) -> None:
    """Patterns, names, colours and a choice of structures in a YAML file; or a table of files."""
    rule = tmp_path / "masks.yaml"
    rule.write_text(
        'scans: "imagesTr/{case}.nii.gz"\nlabels: "labelsTr/{case}.nii.gz"\n'
        'structures: {1: milt, 2: lever}\ncolours: {milt: "#AA3333"}\n'
    )
    manifest = prepare(msd, tmp_path / "own", RECIPE, replace(NAMES, masks=mask_rule(str(rule))))
    check_pairs(tmp_path / "own", "milt", "lever")
    assert manifest.structures[0] == {"name": "milt", "colour": "#aa3333"}
    rule.write_text('scans: "imagesTr/{case}.nii.gz"\nlabels: "labelsTr/{case}.nii.gz"\nstructures: [liver]\n')
    manifest = prepare(msd, tmp_path / "liver", RECIPE, replace(NAMES, masks=mask_rule(str(rule))))
    assert [one["name"] for one in manifest.structures] == ["liver"]
    assert pairs(tmp_path / "liver")[1].max() == 1
    rule.write_text("table: pairs.csv\nstructures: {1: spleen, 2: liver}\n")
    (msd / "pairs.csv").write_text("scan,labels\nimagesTr/spleen_0.nii.gz,labelsTr/spleen_0.nii.gz\n")
    manifest = prepare(msd, tmp_path / "table", RECIPE, replace(NAMES, masks=mask_rule(str(rule))))
    check_pairs(tmp_path / "table", "spleen", "liver")
    assert "it has no label map" in {one["path"]: one["reason"] for one in manifest.refused}["imagesTr/spleen_1.nii.gz"]


def write_seg(folder: Path, labels: np.ndarray, path: Path, names: tuple[str, ...]) -> None:
    """A SEG of the series in ``folder``, whose slices are those of the label map from foot to head."""
    images = sorted(
        (pydicom.dcmread(one) for one in folder.glob("*.dcm")), key=lambda one: float(one.ImagePositionPatient[2])
    )
    for number, image in enumerate(images):  # what highdicom asks of a source, and small series in tests lack
        image.PatientName, image.PatientBirthDate, image.PatientSex, image.StudyID = "a^b", "", "", ""
        image.StudyDate = image.StudyTime = image.AccessionNumber = image.ReferringPhysicianName = ""
        image.SeriesNumber, image.InstanceNumber, image.SliceThickness = 1, number + 1, 2.0
    pixels = np.stack([labels[::-1, ::-1, k].T for k in range(labels.shape[2])])
    described = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Organ, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(names, 1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    segmentation.save_as(path)


def test_dicom_segmentation(tmp_path: Path, series: Callable[..., Any]) -> None:
    """A SEG leaves empty slices out, and names the series that it is of."""
    scan, labels = body(0)
    folder = tmp_path / "dicom"
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BodyPartExamined": "ABDOMEN"}
    series(folder / "ct", scan + 1024, modality="CT", **tags)
    write_seg(folder / "ct", labels, folder / "seg.dcm", ("spleen", "liver"))
    manifest = prepare(folder, tmp_path / "out", RECIPE, ScanRules(masks=mask_rule("dicom-seg")))
    check_pairs(tmp_path / "out", "spleen", "liver")
    assert not manifest.refused


def other_grid(path: Path, labels: np.ndarray) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 4
    save(path, labels, moved)


def fewer_slices(path: Path, labels: np.ndarray) -> None:
    save(path, labels[..., :6])


def coarser(path: Path, labels: np.ndarray) -> None:
    save(path, labels[::2, ::2], AFFINE @ np.diag([2, 2, 1, 1]))


def unknown_label(path: Path, labels: np.ndarray) -> None:
    save(path, np.where(labels == 2, 7, labels).astype(np.uint8))


def empty(path: Path, labels: np.ndarray) -> None:
    save(path, labels * 0)


def fractions(path: Path, labels: np.ndarray) -> None:
    save(path, labels * np.float32(0.5))


def damaged(path: Path, labels: np.ndarray) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_grid, "voxels do not match those of its scan"),
        (fewer_slices, "48×40×6 voxels"),
        (coarser, "voxels do not match those of its scan"),
        (unknown_label, "labels 7, which dataset.json does not name"),
        (empty, "nothing is labelled"),
        (fractions, "whole numbers"),
        (damaged, "cannot be read as NIfTI"),
    ],
)
def test_bad_label_maps_are_refused(
    spoil: Callable[[Path, np.ndarray], None], said: str, msd: Path, tmp_path: Path
) -> None:
    """A scan with a bad label map is refused in one sentence that names the file, and the others go on."""
    spoil(msd / "labelsTr" / "spleen_1.nii.gz", body(1)[1])
    manifest = prepare(msd, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("msd")))
    assert [one["path"] for one in manifest.refused] == ["imagesTr/spleen_1.nii.gz"]
    assert said in manifest.refused[0]["reason"]
    assert "spleen_1" in manifest.refused[0]["reason"]
    assert set(manifest.split) == {"spleen_0"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 0.4], "whole numbers"),
        ([0, np.nan], "not finite"),
        ([0, -1], "from 0 to"),
        ([0, 0], "nothing is labelled"),
    ],
)
def test_bad_files_of_one_structure(values: list[float], said: str, totalsegmentator: Path, tmp_path: Path) -> None:
    """Probabilities, or marks of what was not labelled, would all become the structure."""
    for path in (totalsegmentator / "s0001" / "segmentations").iterdir():
        save(path, np.array(values, np.float32)[(body(1)[1] == 1).astype(int)])
    manifest = prepare(totalsegmentator, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("totalsegmentator")))
    assert len(manifest.refused) == 1
    assert said in manifest.refused[0]["reason"]


def test_overlapping_files(totalsegmentator: Path, tmp_path: Path) -> None:
    """A voxel that two organs claim could be either: nothing is guessed."""
    case = totalsegmentator / "s0001" / "segmentations"
    labels = body(1)[1]
    save(case / "heart.nii.gz", (labels == 2).astype(np.uint8))
    manifest = prepare(totalsegmentator, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("totalsegmentator")))
    assert len(manifest.refused) == 1
    assert "share 288 voxels" in manifest.refused[0]["reason"]


def test_larger_label_map_of_the_same_voxels(msd: Path, tmp_path: Path) -> None:
    """A label map of the whole scan fits a part that was cut out of it."""
    scan = body(1)[0]
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [2, 0, 1, 1])[:3]
    save(msd / "imagesTr" / "spleen_1.nii.gz", scan[2:, :, 1:-1], affine)
    prepare(msd, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("msd")))
    check_pairs(tmp_path / "out", "spleen", "liver")


def test_a_folder_without_label_maps_is_refused(msd: Path, tmp_path: Path) -> None:
    """Whoever names the wrong layout is told what was looked for."""
    with pytest.raises(MedvarError, match=r"looked for \{case\}/segmentations/\{structure\}.nii.gz"):
        prepare(msd, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("totalsegmentator")))
    (msd / "dataset.json").unlink()
    with pytest.raises(MedvarError, match=r"dataset.json is missing"):
        prepare(msd, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("msd")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scans: a\n", "it needs scans and labels"),
        ('scans: "a/{x}.nii"\nlabels: "b/{y}.nii"\n', "named parts"),
        ('scans: "a/{x}.nii"\nlabels: "b/{x}.nii"\nstructures: {0: air}\n', "structures is value: name"),
        ('scans: "a/{x}.nii"\nlabels: "b/{x}.nii"\nstructures: {1: a}\ncolours: {a: red}\n', "#rrggbb"),
        ('scan: "a/{x}.nii"\n', "unknown field scan"),
        ("- a\n", "holds no fields"),
    ],
)
def test_bad_rules_are_refused(text: str, said: str, tmp_path: Path) -> None:
    """A YAML file that cannot be meant is refused before any scan is read."""
    (tmp_path / "masks.yaml").write_text(text)
    with pytest.raises(MedvarError, match=said):
        mask_rule(str(tmp_path / "masks.yaml"))
    with pytest.raises(MedvarError, match="layouts are totalsegmentator, msd"):
        mask_rule("amos")


def test_append_and_merge_keep_masks(msd: Path, totalsegmentator: Path, tmp_path: Path) -> None:
    """Masks stay with their slices; folders of other structures do not mix."""
    one, two, rule = tmp_path / "one", tmp_path / "two", mask_rule("msd")
    prepare(msd, one, RECIPE, replace(NAMES, masks=rule))
    for folder in ("imagesTr", "labelsTr"):
        (msd / folder / "spleen_1.nii.gz").rename(msd / folder / "spleen_9.nii.gz")
        (msd / folder / "spleen_0.nii.gz").unlink()
    scan, _ = body(1)
    save(msd / "imagesTr" / "spleen_9.nii.gz", scan[:, ::-1])
    save(msd / "labelsTr" / "spleen_9.nii.gz", body(1)[1][:, ::-1])
    prepare(msd, two, RECIPE, replace(NAMES, masks=rule))
    merge([one, two], tmp_path / "merged")
    check_pairs(tmp_path / "merged", "spleen", "liver")
    append(one, two)
    check_pairs(one, "spleen", "liver")
    prepare(msd, tmp_path / "plain", RECIPE, NAMES)
    assert "structures" not in json.loads((tmp_path / "plain" / "manifest.json").read_text())
    with pytest.raises(MedvarError, match=r"masks of spleen, liver, but .* of no structures"):
        merge([one, tmp_path / "plain"], tmp_path / "other")
    with pytest.raises(MedvarError, match="have no masks"):
        SliceDataset(tmp_path / "plain").masks([0])


def test_damaged_masks_are_found_like_damaged_images(msd: Path, tmp_path: Path) -> None:
    """A mask file that was changed, or names no structure, is found."""
    prepare(msd, tmp_path / "out", RECIPE, replace(NAMES, masks=mask_rule("msd")))
    path = tmp_path / "out" / "masks-00000.npy"
    masks = np.load(path)
    masks[0] = 9
    np.save(path, masks)
    with pytest.raises(MedvarError, match=r"masks-00000\.npy was changed after it was written"):
        verify(tmp_path / "out")
    with pytest.raises(MedvarError, match="value 9"):
        SliceDataset(tmp_path / "out").masks([0])
    path.unlink()
    with pytest.raises(MedvarError, match="missing or truncated"):
        SliceDataset(tmp_path / "out")
