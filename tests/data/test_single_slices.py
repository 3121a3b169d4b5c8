"""Single slices of an index: the right pixels, values, labels and split; and what is refused, by name."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from medvar_engine.data import slice_files
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.prepare import prepare
from medvar_engine.data.read.read_slice import read_grey
from medvar_engine.data.read.refusal import Refusal
from medvar_engine.data.recipe.recipe_file import load_recipe
from medvar_engine.data.recipe.slice_index_file import COLUMNS, is_slice_index
from medvar_engine.data.shards import Manifest, append, merge, resplit, verify
from medvar_engine.data.split import SplitRule
from medvar_engine.data.survey import ScanRules
from medvar_engine.errors import MedvarError
from medvar_engine.write.marks import Marks
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png

SIDE = 32
RECIPE = Recipe.of(size=SIDE)
GREY = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
SLICES = Path(__file__).parents[2].parent / "shared" / "data" / "slices"


def write_index(folder: Path, *rows: dict[str, Any], columns: tuple[str, ...] = COLUMNS) -> Path:
    """An index of these rows, each with what it does not say otherwise."""
    folder.mkdir(exist_ok=True)
    plain = dict.fromkeys(COLUMNS, "") | {"modality": "MR", "region": "brain", "plane": "axial", "split": "train"}
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow(plain | {"patient": str(row["path"]).split(".")[0]} | row)
    return folder


def read(
    folder: Path, out: Path, recipe: Recipe = RECIPE, rules: ScanRules | None = None, **how: Any
) -> tuple[SliceDataset, dict[str, str]]:
    """The slices, and the refusals by name."""
    refusals: list[Refusal] = []
    prepare(folder, out, recipe, rules, on_refusal=refusals.append, **how)
    return SliceDataset(out), {one.path: one.reason for one in refusals}


def image(number: int) -> np.ndarray:
    """A slice that is no other's."""
    return np.random.default_rng((1, number)).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


def shown(dataset: SliceDataset, index: int = 0) -> np.ndarray:
    """A slice as 0…1."""
    return (dataset[index][0][0] + 1) / 2


def test_every_format_gives_the_same_pixels(tmp_path: Path) -> None:
    """Breaks for whoever changes formats: a gray value would mean something else."""
    folder = tmp_path / "a"
    folder.mkdir()
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(GREY).save(folder / "a.png")
    Image.fromarray(deep).save(folder / "b.png")
    Image.fromarray(GREY).save(folder / "c.tif")
    Image.fromarray(deep).save(folder / "d.TIFF")
    Image.fromarray(GREY).convert("RGB").save(folder / "e.webp", lossless=True)
    Image.fromarray(GREY).convert("RGB").save(folder / "f.png")
    np.save(folder / "g.npy", GREY)
    np.save(folder / "h.npy", np.asfortranarray(deep.astype(">u2")))
    tags = ImageFileDirectory_v2()
    tags[262] = 0  # white is zero
    Image.fromarray(np.invert(deep)).save(folder / "i.tif", tiffinfo=tags)
    names = sorted(path.name for path in folder.iterdir())
    dataset, refused = read(write_index(folder, *({"path": name} for name in names)), tmp_path / "out")
    assert refused == {}
    assert [row.series for row in dataset.rows] == names
    for index, name in enumerate(names):
        np.testing.assert_allclose(shown(dataset, index), GREY / 255, atol=1e-4, err_msg=name)


def test_jpeg_is_read_as_it_is_shown(tmp_path: Path) -> None:
    """Breaks for images of a telephone or a scanner: they would lie on their side."""
    folder = tmp_path / "a"
    folder.mkdir()
    smooth = np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(smooth).save(folder / "a.jpg", quality=95, exif=exif)
    dataset, _ = read(write_index(folder, {"path": "a.jpg"}), tmp_path / "out")
    np.testing.assert_allclose(shown(dataset), np.rot90(smooth, -1) / 255, atol=0.03)


def test_facts_of_the_index_are_kept(tmp_path: Path) -> None:
    """Breaks for training: a slice would be learnt as something that it is not, and nobody be named for it."""
    folder = tmp_path / "a"
    row = {
        "path": "sub/a.png", "patient": "p 1", "modality": "mri", "region": "Heart", "plane": "Short axis",
        "contrast": "cine", "spacing_mm": "1.5", "split": "Test", "set": "Sunny_Brook", "source": "Sunnybrook, 2009",
        "licence": "CC0 1.0",
    }  # fmt: skip
    write_index(folder, row, {"path": "b.npy"})
    (folder / "sub").mkdir()
    Image.fromarray(GREY).save(folder / "sub" / "a.png")
    np.save(folder / "b.npy", image(1))
    dataset, refused = read(folder, tmp_path / "out")
    assert refused == {}
    first, second = dataset.rows
    assert (first.patient, first.modality, first.region, first.plane) == ("p 1", "MR", "heart", "short-axis")
    assert (first.contrast, first.dataset, first.split, first.spacing_mm) == ("cine", "sunny-brook", "test", 1.5)
    assert (first.source, first.licence, first.series) == ("Sunnybrook, 2009", "CC0 1.0", "sub/a.png")
    assert (first.position, first.position_mm, first.unit) == (None, None, "arbitrary")
    assert (second.spacing_mm, second.split, second.contrast) == (None, "train", None)
    assert dataset.manifest.split == {"p 1": "test", "b": "train"}


def test_several_contrasts_are_an_unknown_one(tmp_path: Path) -> None:
    """Breaks for training: slices of T1 or T2 would be learnt as a third contrast, and not as ones of any contrast."""
    folder = tmp_path / "a"
    write_index(folder, {"path": "a.npy", "modality": "MR", "contrast": "T1/T2"}, {"path": "b.npy", "contrast": "T2*"})
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", image(ord(name)))
    dataset, refused = read(folder, tmp_path / "out")
    assert refused == {}
    assert [row.contrast for row in dataset.rows] == [None, "T2*"]


def test_hounsfield_units_are_clipped_to_the_window_of_the_region(tmp_path: Path) -> None:
    """Breaks for CT: the same tissue would have another gray in slices than in volumes."""
    folder = tmp_path / "a"
    ct = {"modality": "CT", "region": "abdomen", "low": "-1000", "high": "1040", "unit": "HU"}
    write_index(folder, {"path": "a.npy", **ct}, {"path": "b.npy", **ct, "low": "", "high": "", "unit": ""})
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", GREY)
    dataset, _ = read(folder, tmp_path / "out")
    hu = GREY / 255 * 2040 - 1000
    np.testing.assert_allclose(shown(dataset), np.clip((hu + 160) / 400, 0, 1), atol=1e-3)
    np.testing.assert_allclose(shown(dataset, 1), GREY / 255, atol=1e-4)
    assert [(row.low, row.high, row.unit) for row in dataset.rows] == [(-160, 240, "HU"), (0, 255, "arbitrary")]
    assert not any("window" in remark for remark in dataset.manifest.remarks)
    narrow = write_index(tmp_path / "b", {"path": "a.npy", **ct, "low": "0", "high": "80"})
    np.save(narrow / "a.npy", GREY)
    dataset, _ = read(narrow, tmp_path / "narrow")
    np.testing.assert_allclose(shown(dataset), (GREY / 255 * 80 + 160) / 400, atol=1e-3)
    assert any("narrower than the window of their region" in remark for remark in dataset.manifest.remarks)


def test_images_are_padded_to_squares(tmp_path: Path) -> None:
    """Breaks for images that are no squares: bodies would be stretched."""
    folder = write_index(tmp_path / "a", {"path": "a.npy", "spacing_mm": "2"})
    np.save(folder / "a.npy", np.pad(np.full((40, 60), 255, np.uint8), 2, constant_values=200))
    dataset, _ = read(folder, tmp_path / "out")
    image = shown(dataset)
    assert dataset.rows[0].spacing_mm == 2 * 64 / SIDE
    assert (image[:5] == 0).all()
    assert (image[27:] == 0).all()
    assert image[6:26].min() > 0.7
    dataset, _ = read(folder, tmp_path / "mm", Recipe.of(size=SIDE, spacing_mm=1.0))
    assert dataset.rows[0].spacing_mm == 1.0
    np.testing.assert_allclose(shown(dataset), 1.0, atol=1e-4)
    write_index(folder, {"path": "a.npy"})
    with pytest.raises(MedvarError, match=r"a\.npy: its pixel size is unknown"):
        prepare(folder, tmp_path / "no", Recipe.of(size=SIDE, spacing_mm=1.0))


def damage(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


BAD: dict[str, tuple[Callable[[Path], object], dict[str, str], str]] = {
    "colour.png": (lambda path: Image.fromarray(np.dstack([GREY, GREY.T, GREY])).save(path), {}, "in colour"),
    "alpha.png": (lambda path: Image.fromarray(GREY).convert("LA").save(path), {}, "mode LA; grey"),
    "palette.png": (lambda path: Image.fromarray(GREY).convert("P").save(path), {}, "mode P; grey"),
    "text.jpg": (lambda path: path.write_text("no image"), {}, "cannot be read as an image"),
    "empty.tif": (lambda path: path.write_bytes(b""), {}, "cannot be read as an image"),
    "blank.npy": (lambda path: np.save(path, np.full((8, 8), 7, np.uint8)), {}, "blank"),
    "raw.npy": (lambda path: np.save(path, GREY.astype(np.uint16)), {}, "nearly black"),
    "float.npy": (lambda path: np.save(path, GREY / 255), {}, "float64; uint8 or uint16"),
    "volume.npy": (lambda path: np.save(path, np.dstack([GREY] * 4)), {}, "two axes"),
    "pickle.npy": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), {}, "cannot be read"),
    "cut.npy": (lambda path: (np.save(path, GREY), damage(path, path.read_bytes())), {}, "cannot be read"),
    "frames.tif": (
        lambda path: Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY.T)]),
        {},
        "several frames",
    ),
    "volume.nii": (lambda path: path.write_bytes(b"x"), {}, "format is none of a single slice"),
    "absent.png": (lambda path: None, {}, "no such file"),
    "folder.png": (lambda path: path.mkdir(), {}, "no such file"),
    "plane.npy": (lambda path: np.save(path, GREY), {"plane": "oblique"}, "unknown plane 'oblique'"),
    "unit.npy": (lambda path: np.save(path, GREY), {"unit": "HU", "low": "0", "high": "9"}, "only CT is in HU"),
    "low.npy": (lambda path: np.save(path, GREY), {"low": "9", "high": "9"}, "low below high"),
    "nan.npy": (lambda path: np.save(path, GREY), {"low": "nan", "high": "9"}, "which is not a number"),
    "spacing.npy": (lambda path: np.save(path, GREY), {"spacing_mm": "-1"}, "spacing_mm is -1"),
    "split.npy": (lambda path: np.save(path, GREY), {"split": "validation"}, "unknown split"),
    "nobody.npy": (lambda path: np.save(path, GREY), {"patient": ""}, "patient is empty"),
    "modality.npy": (lambda path: np.save(path, GREY), {"modality": "PET"}, "Unknown modality"),
}


def test_unusable_files_are_refused_by_name(tmp_path: Path) -> None:
    """Breaks for a folder of thousands: one bad file would end the work, or be learnt from."""
    folder = write_index(
        tmp_path / "a", {"path": "good.npy"}, *({"path": name, **row} for name, (_, row, _) in BAD.items())
    )
    np.save(folder / "good.npy", GREY)
    for name, (make, _, _) in BAD.items():
        make(folder / name)
    dataset, refused = read(folder, tmp_path / "out")
    assert len(dataset) == 1
    assert set(refused) == set(BAD)
    for name, (_, _, says) in BAD.items():
        assert says in refused[name], name
    assert {one["path"] for one in dataset.manifest.refused} == set(BAD)


def test_paths_outside_the_folder_are_refused(tmp_path: Path) -> None:
    """Breaks for indices from strangers: a file of somebody else would be given away with the slices."""
    np.save(tmp_path / "outside.npy", GREY)
    paths = ["../outside.npy", str(tmp_path / "outside.npy"), "link.npy", "sub/../../outside.npy"]
    folder = write_index(tmp_path / "a", {"path": "good.npy"}, *({"path": path, "patient": "x"} for path in paths))
    np.save(folder / "good.npy", GREY)
    (folder / "link.npy").symlink_to(tmp_path / "outside.npy")
    refusals: list[Refusal] = []
    prepare(folder, tmp_path / "out", RECIPE, on_refusal=refusals.append)
    assert [row.series for row in SliceDataset(tmp_path / "out").rows] == ["good.npy"]
    assert [one.path for one in refusals] == ["index.csv"] * 4
    for line, (path, one) in enumerate(zip(paths, refusals, strict=True), 3):
        assert one.reason.startswith(f"line {line}: the path {path!r} leads out of the folder")


def test_an_index_without_a_column_is_refused(tmp_path: Path) -> None:
    """Breaks for an index of another layout: everything would be taken as unknown, and the split be drawn."""
    np.save(write_index(tmp_path / "a", {"path": "a.npy"}, columns=COLUMNS[:-4]) / "a.npy", GREY)
    with pytest.raises(MedvarError, match=r"index\.csv: columns split, set, source, licence are missing"):
        prepare(tmp_path / "a", tmp_path / "out", RECIPE)
    assert not (tmp_path / "out").exists()
    scans = tmp_path / "b"
    scans.mkdir()
    (scans / "index.csv").write_text("path,patient,modality,region,plane\na.nii.gz,p1,MR,brain,axial\n")
    assert not is_slice_index(scans)
    (scans / "index.csv").write_text("path,patient,modality,region\na.PNG,p1,MR,brain\n")
    assert is_slice_index(scans)


def test_an_unclosed_quote_is_refused(tmp_path: Path) -> None:
    """Breaks for tables typed by hand: all rows behind it would be missing, and nobody be told."""
    folder = write_index(tmp_path / "a", {"path": "a.npy"}, {"path": "b.npy"})
    text = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(text.replace("a.npy,a,", 'a.npy,"a,'))
    with pytest.raises(MedvarError, match=r"index\.csv cannot be read"):
        prepare(folder, tmp_path / "out", RECIPE)


def test_contradictory_rows_are_refused(tmp_path: Path) -> None:
    """Breaks for the test: a person who is learnt from would be tested, too."""
    rows = [
        {"path": "a.npy", "patient": "both", "split": "train"},
        {"path": "b.npy", "patient": "both", "split": "test"},
        {"path": "c.npy", "patient": "one", "split": "train"},
        {"path": "./c.npy", "patient": "two", "split": "test"},
        {"path": "d.npy", "patient": "other", "split": ""},
        {"path": "e.npy", "patient": "one", "split": ""},
    ]
    folder = write_index(tmp_path / "a", *rows)
    for number, name in enumerate("abcdef"):
        np.save(folder / f"{name}.npy", image(number))
    dataset, refused = read(folder, tmp_path / "out", split=SplitRule(holdout=("other",)))
    assert dataset.manifest.split == {"one": "train", "other": "test"}
    assert dataset.manifest.given_split == ["one"]
    assert set(refused) == {"a.npy", "b.npy", "c.npy"}
    assert refused["a.npy"] == refused["b.npy"] == "patient 'both' is on both sides of the split in index.csv"
    assert "names it again in line 5" in refused["c.npy"]
    assert "1 image files are ignored, because index.csv does not list them" in dataset.manifest.remarks
    with pytest.raises(MedvarError, match=r"\['one'\] belong to the training split of index\.csv"):
        prepare(folder, tmp_path / "no", RECIPE, split=SplitRule(holdout=("one",)))


def test_pseudonyms_hide_names(tmp_path: Path) -> None:
    """Breaks for hospitals: names of people would be given away in a table of refusals."""
    rows = [{"path": f"anna-{n}.npy", "patient": "Anna", "split": split} for n, split in enumerate(("train", "test"))]
    folder = write_index(tmp_path / "a", *rows, {"path": "bert.npy", "patient": "Bert"}, {"path": "../carl.npy"})
    np.save(folder / "bert.npy", GREY)
    key = Pseudonyms(bytes(32))
    prepare(folder, tmp_path / "out", RECIPE, ScanRules(pseudonyms=key))
    text = (tmp_path / "out" / "manifest.json").read_text().lower()
    assert not any(name in text for name in ("anna", "bert", "carl"))
    (row,) = SliceDataset(tmp_path / "out").rows
    assert (row.patient, row.series) == (key.patient("Bert"), key.series("bert.npy"))
    assert len(Manifest.read(tmp_path / "out").refused) == 3


def test_only_requested_planes_are_used(tmp_path: Path) -> None:
    """Breaks for a model of one plane: it would learn the others, too."""
    planes = ["axial", "coronal", "short-axis"]
    folder = write_index(tmp_path / "a", *({"path": f"{plane}.npy", "plane": plane} for plane in planes))
    for plane in planes:
        np.save(folder / f"{plane}.npy", GREY)
    for asked, found in ((None, planes), (["axial"], ["axial"]), (["coronal", "short-axis"], planes[1:])):
        dataset, refused = read(folder, tmp_path / f"out{len(found)}", Recipe.of(size=SIDE, planes=asked))
        assert [row.plane for row in dataset.rows] == found
        assert refused == {}
    assert "left out: 1 axial" in dataset.manifest.remarks[-1]


def test_synthetic_images_are_refused_unless_requested(tmp_path: Path, make_trace: Callable[..., Any]) -> None:
    """Breaks for training: a model would learn from its own images, unless a person wants it to."""
    folder = write_index(tmp_path / "a", {"path": "a.png"}, {"path": "b.png"}, {"path": "real.npy"})
    pixels = (GREY / 127.5 - 1).astype(np.float32)
    image = OutputImage(pixels, make_trace(), None, 0.0, 1.0, "arbitrary")
    write_png(folder / "a.png", image)
    write_png(
        folder / "b.png", OutputImage(pixels, make_trace(), None, 0.0, 1.0, "arbitrary", marks=Marks(burned_in=True))
    )
    np.save(folder / "real.npy", GREY)
    dataset, refused = read(folder, tmp_path / "out")
    assert len(dataset) == 1
    assert all("made by a generative model" in refused[name] for name in ("a.png", "b.png"))
    dataset, refused = read(folder, tmp_path / "all", rules=ScanRules(include_synthetic=True))
    assert len(dataset) == 2
    assert "--burn-in" in refused["b.png"]


def test_a_given_split_survives_merging_and_appending(tmp_path: Path, prepared: Callable[..., Path]) -> None:
    """Breaks for people who are in two folders: they would be learnt from and tested."""
    rows = [
        {"path": "a.npy", "patient": "ct1", "split": "train"},
        {"path": "b.npy", "patient": "mr1", "split": "test"},
        {"path": "c.npy", "patient": "new", "split": "train"},
    ]
    folder = write_index(tmp_path / "a", *rows)
    for number, name in enumerate("abc"):
        np.save(folder / f"{name}.npy", image(number))
    prepare(folder, tmp_path / "slices", Recipe.of(size=8))
    scans = prepared(tmp_path / "scans", ["ct1", "mr1", "ct2"], holdout=("ct1", "ct2"))
    for order in ((tmp_path / "slices", scans), (scans, tmp_path / "slices")):
        merged = merge(order, tmp_path / f"merged-{order[0].name}", any_recipe=True)
        assert merged.split == {"ct1": "train", "ct2": "test", "mr1": "test", "new": "train"}
        assert merged.given_split == ["ct1", "mr1", "new"]
        assert any(remark.startswith("used for training, according to the split") for remark in merged.remarks)
    longer = append(scans, tmp_path / "slices", any_recipe=True)  # whoever is there stays where they are
    assert longer.split == {"ct1": "test", "ct2": "test", "mr1": "train", "new": "train"}
    assert longer.given_split == ["new"]
    assert resplit(scans, SplitRule(test_fraction=0.0)).given_split == []


def test_a_given_split_holds_for_all_names_of_one_patient(tmp_path: Path) -> None:
    """Breaks for people with two names: they would be learnt from and tested, as the index has them."""
    rows = [
        {"path": "a.npy", "patient": "Case 7", "split": "train"},
        {"path": "b.npy", "patient": "case007", "split": "test"},
        {"path": "c.npy", "patient": "copied", "split": "train"},
        {"path": "d.npy", "patient": "copy", "split": ""},
        {"path": "e.npy", "patient": "alone", "split": "train"},
    ]
    folder = write_index(tmp_path / "a", *rows)
    for name, number in zip("abcde", (0, 1, 2, 2, 3), strict=True):
        np.save(folder / f"{name}.npy", image(number))
    manifest = read(folder, tmp_path / "out")[0].manifest
    assert manifest.one_patient == [["Case 7", "case007"], ["copied", "copy"]]
    assert manifest.split == {"Case 7": "test", "alone": "train", "case007": "test", "copied": "train", "copy": "train"}
    assert manifest.given_split == ["alone", "case007", "copied"]
    assert any("index.csv assigns them to training" in one and one.endswith(": Case 7") for one in manifest.remarks)
    assert verify(tmp_path / "out").split == manifest.split


def test_merging_gives_one_patient_the_side_that_was_given(tmp_path: Path) -> None:
    """Breaks for a public split: a second folder would move its patients, or tear those with two names."""
    public = write_index(tmp_path / "a", {"path": "a.npy", "patient": "P01"}, {"path": "b.npy", "patient": "P02"})
    own = write_index(
        tmp_path / "b",
        {"path": "a.npy", "patient": "p1", "split": ""},
        {"path": "c.npy", "patient": "p2", "split": "test"},
    )
    for folder, numbers in ((public, {"a": 0, "b": 1}), (own, {"a": 2, "c": 3})):
        for name, number in numbers.items():
            np.save(folder / f"{name}.npy", image(number))
    prepare(public, tmp_path / "one", RECIPE)
    prepare(own, tmp_path / "two", RECIPE, split=SplitRule(holdout=("p1",)))
    for folders in (("one", "two"), ("two", "one")):
        merged = merge([tmp_path / name for name in folders], tmp_path / "".join(folders), any_recipe=True)
        assert merged.split == {"P01": "train", "P02": "test", "p1": "train", "p2": "test"}
        assert merged.given_split == ["P01", "p2"]
        assert verify(tmp_path / "".join(folders)).split == merged.split


def test_an_interrupted_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for a hundred thousand files: all would be read again, or the result be another."""
    names = [f"{number:03d}.npy" for number in range(70)]
    folder = write_index(tmp_path / "a", *({"path": name} for name in names), {"path": "bad.npy"})
    for number, name in enumerate(names):
        np.save(folder / name, np.roll(GREY, number))
    (folder / "bad.npy").write_text("no array")
    expected = prepare(folder, tmp_path / "whole", RECIPE)
    assert expected.slices == 70

    def stop(what: str, done: int, of: int, slices: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "out", RECIPE, progress=stop)
    seen: list[str] = []

    def noting(path: Path, **how: Any) -> Any:
        seen.append(path.name)
        return read_grey(path, **how)

    monkeypatch.setattr(slice_files, "read_grey", noting)
    assert prepare(folder, tmp_path / "out", RECIPE) == expected
    assert set(seen) == {*names[64:], "bad.npy"}


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_single_dicom_slices(plane: str, tmp_path: Path, phantom: Any, series: Callable[..., list[Path]]) -> None:
    """Breaks for hospitals: a slice that was exported alone would lose its HU, its size or its direction."""
    hu = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}
    for modality, more in (("CT", hu), ("MR", {})):
        folder = tmp_path / modality
        whole = series(folder / "all", phantom, plane, modality, **more)
        chosen = next(path for path in whole if path.name.endswith("-20.dcm"))
        row = {"path": f"all/{chosen.name}", "patient": "p", "modality": modality, "region": "abdomen"}
        write_index(folder, row | {"plane": plane}, row | {"path": f"all/{whole[0].name}", "plane": "short-axis"})
        dataset, refused = read(folder, tmp_path / f"{modality}-out", Recipe.of(size=48, window=(-1000, 1000)))
        assert refused == {}
        (folder / "index.csv").unlink()
        rules = {"size": 48, "planes": [plane], "window": (-1000, 1000), "duplicate_bits": 0}
        rules |= {"min_foreground": 0.0, "min_relative": 0.0}
        prepare(folder, tmp_path / f"{modality}-scan", Recipe.of(**rules), ScanRules(region="abdomen"))
        volume = SliceDataset(tmp_path / f"{modality}-scan")
        if modality == "CT":
            differences = [np.abs(image - dataset[0][0]).max() for image, _ in volume]
            assert min(differences) < 1e-3
            assert (dataset.rows[0].low, dataset.rows[0].unit) == (-1000, "HU")
        else:
            likeness = [np.corrcoef(image.ravel(), dataset[0][0].ravel())[0, 1] for image, _ in volume]
            assert max(likeness) > 0.99
        assert dataset.rows[0].spacing_mm == volume.rows[0].spacing_mm
        assert [row.plane for row in dataset.rows] == [plane, "short-axis"]
        assert [row.position for row in dataset.rows] == [None, None]


def test_dicom_with_several_frames_is_refused(tmp_path: Path, phantom: Any, series: Any, multiframe: Any) -> None:
    """Breaks for an index that is wrong: it would be believed against the header."""
    folder = tmp_path / "a"
    single = series(folder / "all", phantom)[0]
    multiframe(folder / "many.dcm", phantom)
    (folder / "cut.dcm").write_bytes(single.read_bytes()[:900])
    secondary = series(folder / "screen", phantom, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")[0]
    np.save(folder / "good.npy", GREY)
    one = f"all/{single.name}"
    rows = [
        ({"path": one, "plane": "coronal"}, "index.csv says coronal, but according to the DICOM header"),
        ({"path": f"all/../{one}", "modality": "CT"}, "leads out"),
        ({"path": "many.dcm"}, "frames; a file with one slice is expected"),
        ({"path": "cut.dcm"}, ""),
        ({"path": f"screen/{secondary.name}"}, "secondary capture"),
    ]
    write_index(folder, {"path": "good.npy"}, *(row for row, _ in rows))
    dataset, refused = read(folder, tmp_path / "out")
    assert len(dataset) == 1
    assert len(refused) == 5
    assert all(any(says in reason for reason in refused.values()) for _, says in rows)


@pytest.mark.skipif(not SLICES.is_dir(), reason=f"real data: no slices in {SLICES}")
def test_real_slices(tmp_path: Path) -> None:
    """Breaks for the shipped model: its data would be others than those that its card names."""
    recipe = load_recipe("slices")
    refusals: list[Refusal] = []
    manifest = prepare(
        SLICES, tmp_path / "out", recipe.recipe(size=16), ScanRules(dataset_recipe=recipe), on_refusal=refusals.append
    )
    with (SLICES / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert manifest.slices == len(rows)
    assert refusals == []
    assert manifest.split == {row["patient"]: row["split"] for row in rows}
    assert manifest.given_split == sorted(manifest.split)
