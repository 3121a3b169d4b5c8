"""`medvar generate` with a bundle that makes masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from tiny_pairs import make_pairs

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.generate.generator import Generator
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.screen import CopyScreen
from medvar_engine.request import Request
from medvar_engine.sets.layouts.coco import run_lengths
from medvar_engine.write.provenance import NEAR, read_about_pixels

Medvar = Callable[..., Any]
NAMED = ("--modality", "CT", "--region", "abdomen", "--plane", "axial")


def mask_file(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(make_pairs(1, 4)[0, 1].astype(np.uint8)).save(folder / "painted.png")
    return folder / "painted.png"


def test_images_come_with_masks(medvar: Medvar, pair_bundle: Bundle, tmp_path: Path) -> None:
    run = medvar("generate", "--bundle", pair_bundle.path, "--out", tmp_path / "out", *NAMED, "--count", 2)
    assert run.code == 0, run.err
    assert [Path(line).name for line in run.lines] == [
        f"ct-abdomen-axial-seed{seed}{end}" for seed in (0, 1) for end in (".png", "-mask.png")
    ]


def test_images_to_a_given_mask(medvar: Medvar, pair_bundle: Bundle, tmp_path: Path) -> None:
    """The same mask with other images; made again by `medvar replay`."""
    painted, out = mask_file(tmp_path / "in"), tmp_path / "out"
    run = medvar("generate", "--bundle", pair_bundle.path, "--out", out, *NAMED, "--count", 2, "--mask", painted)
    assert run.code == 0, run.err
    first, second = (np.asarray(Image.open(line)) for line in run.lines[1::2])
    np.testing.assert_array_equal(first, second)
    assert (first == np.asarray(Image.open(painted))).mean() > 0.95
    assert Path(run.lines[0]).read_bytes() != Path(run.lines[2]).read_bytes()
    again = medvar("replay", run.lines[0], "--bundle", pair_bundle.path)
    assert again.code == 0, again.err


def test_overwriting_leaves_no_file_of_an_older_image(medvar: Medvar, pair_bundle: Bundle, tmp_path: Path) -> None:
    """The mask, or the previews, of an older image would seem to belong to the new one."""
    asked = ("--out", tmp_path, *NAMED, "--seed", 3)
    assert medvar("generate", "--bundle", pair_bundle.path, *asked, "--show-scales").code == 0
    assert {path.name[22:] for path in tmp_path.iterdir()} == {".png", "-mask.png", "-scales.png"}
    (tmp_path / "ct-abdomen-axial-seed3.png").unlink()
    refused = medvar("generate", "--bundle", "demo", *asked)
    assert refused.code == 1
    assert "-mask.png exists already" in refused.err
    assert medvar("generate", "--bundle", "demo", *asked, "--overwrite").code == 0
    assert [path.name[22:] for path in tmp_path.iterdir()] == [".png"]


def test_unusable_masks_are_refused(medvar: Medvar, pair_bundle: Bundle, tmp_path: Path) -> None:
    """One sentence, and nothing is left behind."""
    painted, out = mask_file(tmp_path / "in"), tmp_path / "out"
    run = medvar("generate", "--bundle", "demo", "--out", out, "--mask", painted)
    assert run.code == 1
    assert "makes images without masks" in run.err
    run = medvar("generate", "--bundle", pair_bundle.path, "--out", out, "--mask", painted, "--layout", "nnunet")
    assert run.code == 1
    assert "leave out --mask" in run.err
    assert not out.exists()


def test_sets_of_pairs(medvar: Medvar, pair_bundle: Bundle, tmp_path: Path) -> None:
    """nnU-Net, the Decathlon, BIDS and an ImageFolder find every image with its mask."""
    for layout in ("nnunet", "decathlon", "bids", "imagefolder", "shards"):
        out = tmp_path / layout
        run = medvar("generate", "--bundle", pair_bundle.path, "--out", out, *NAMED, "--count", 3, "--layout", layout)
        assert run.code == 0, run.err
    nnunet, decathlon = (json.loads((tmp_path / one / "dataset.json").read_text()) for one in ("nnunet", "decathlon"))
    assert nnunet["labels"] == {"background": 0, "square": 1, "bar": 2}
    for image in sorted((tmp_path / "nnunet" / "imagesTr").glob("*.nii.gz")):
        label = tmp_path / "nnunet" / "labelsTr" / image.name.replace("_0000.nii", ".nii")
        one, other = nibabel.load(image), nibabel.load(label)
        np.testing.assert_array_equal(one.affine, other.affine)
        assert one.shape == other.shape
        assert set(np.unique(np.asarray(other.dataobj))) <= {0, 1, 2}
    assert decathlon["labels"] == {"0": "background", "1": "square", "2": "bar"}
    assert len(decathlon["training"]) == 3
    for pair in decathlon["training"]:
        assert all((tmp_path / "decathlon" / path).is_file() for path in pair.values())
    bids = sorted(path.name for path in (tmp_path / "bids" / "sub-00000001").rglob("*.nii.gz"))
    assert bids == ["sub-00000001_desc-synthetic_ct.nii.gz", "sub-00000001_desc-synthetic_dseg.nii.gz"]
    assert len(list((tmp_path / "imagefolder" / "masks").rglob("*.png"))) == 3
    assert not list((tmp_path / "imagefolder" / "images").rglob("*mask*"))
    assert np.load(tmp_path / "shards" / "units" / "00000-masks.npy").shape == (3, 16, 16)


def test_coco(medvar: Medvar, pair_bundle: Bundle, tmp_path: Path) -> None:
    """Tools for detection and instance segmentation would find no objects, or other pixels than the masks'."""
    out = tmp_path / "set"
    for count in (2, 3):  # begun, and made larger
        asked = ("--bundle", pair_bundle.path, "--out", out, *NAMED, "--count", count, "--layout", "coco")
        run = medvar("generate", *asked)
        assert run.code == 0, run.err
    found = json.loads((out / "annotations.json").read_text(encoding="utf-8"))
    assert "SYNTHETIC" in found["info"]["description"]
    assert [(one["id"], one["name"]) for one in found["categories"]] == [(1, "square"), (2, "bar")]
    assert [one["file_name"] for one in found["images"]] == [path.name for path in sorted((out / "images").iterdir())]
    masks = {int(path.stem): np.zeros_like(np.asarray(Image.open(path))) for path in (out / "masks").iterdir()}
    for one in found["annotations"]:
        height, width = one["segmentation"]["size"]
        runs = one["segmentation"]["counts"]
        pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
        left, top, across, down = map(int, one["bbox"])
        assert pixels.sum() == pixels[top : top + down, left : left + across].sum() == one["area"]
        assert pixels[top].any()
        assert pixels[:, left + across - 1].any()
        masks[one["image_id"]][pixels] = one["category_id"]
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask, np.asarray(Image.open(out / "masks" / f"{number:08d}.png")))
    refused = medvar("generate", "--bundle", "demo", "--out", tmp_path / "other", "--count", 2, "--layout", "coco")
    assert refused.code == 1
    assert "makes images without masks" in refused.err
    assert not (tmp_path / "other").exists()


def test_run_lengths() -> None:
    """By columns, the first run of background; as pycocotools has them."""
    mask = np.array([[1, 0], [1, 1], [0, 1]], dtype=bool)
    assert run_lengths(mask) == [0, 2, 2, 2]
    assert run_lengths(np.zeros((2, 2), dtype=bool)) == [4]


@pytest.mark.parametrize("layout", ["nnunet", "decathlon", "bids", "imagefolder", "coco", "shards", None])
def test_sets_of_pairs_are_judged_with_their_masks(
    medvar: Medvar, pair_bundle: Bundle, tmp_path: Path, layout: str | None
) -> None:
    """Masks would be judged as if they were images, or images without their masks."""
    from medvar_engine.evaluate.images.synthetic_images import open_synthetic

    asked = () if layout is None else ("--layout", layout)
    out = tmp_path / "set"
    run = medvar("generate", "--bundle", pair_bundle.path, "--out", out, *NAMED, "--count", 3, *asked)
    assert run.code == 0, run.err
    found = open_synthetic(out)
    assert len(found) == len(found.images) == 3
    assert found.masks is not None
    assert [one.name for one in found.masks.structures] == ["square", "bar"]
    generator = Generator(OnnxBackend(pair_bundle, device="cpu"))
    requests = [Request(Condition("CT", "abdomen", "axial"), seed, pair_bundle.sampling) for seed in range(3)]
    _, masks = generator.pairs(generator.finish(generator.start(requests)))
    np.testing.assert_array_equal(found.masks.batch([2, 0]), masks[[2, 0]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--stack", 3, "--workers", 2), "one process"),
        (("--stack", 3, "--cluster", "tcp://127.0.0.1:8786"), "one process"),
        (("--slice-mm", 2), "--slice-mm and --to-position are for"),
        (("--to-position", 0.4), "--slice-mm and --to-position are for"),
    ],
)
def test_options_of_stacks_and_images_exclude_each_other(
    medvar: Medvar, pair_bundle: Bundle, tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    """An option that does nothing would make its user believe that it did."""
    run = medvar("generate", "--bundle", pair_bundle.path, "--out", tmp_path / "out", *NAMED, *arguments)
    assert run.code == 1
    assert said in " ".join(run.err.split())
    assert not (tmp_path / "out").exists()


def test_flagged_slices_of_a_stack(
    medvar: Medvar, pair_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume would say that it is far from training slices because its first slice is."""

    class Wary:
        def risk(self, image: object) -> CopyRisk:
            seen.append(image)
            return CopyRisk((0.9, 0.8, 0.1, 0.15)[len(seen) - 1], 0.2)

    seen: list[object] = []
    monkeypatch.setattr(CopyScreen, "of", lambda _, asked: CopyScreen(asked, Wary()))  # type: ignore[arg-type]
    stack = ("--stack", 4, "--batch", 2, "--copy-policy", "flag")
    run = medvar("generate", "--bundle", pair_bundle.path, "--out", tmp_path / "out", *NAMED, *stack)
    assert run.code == 0, run.err
    said = " ".join(run.err.split())
    assert "flagged: slice 3 of 4 lies at a distance of 0.100" in said
    assert "flagged: slice 4 of 4 lies at a distance of 0.150" in said
    assert said.count("flagged:") == 2
    (beside,) = (path for path in map(Path, run.lines) if path.suffix == ".json")
    about = json.loads(beside.read_text(encoding="utf-8"))
    assert about["pixels"]["nearness"] == {"distance": 0.1, "threshold": 0.2, "flagged": True}
    assert NEAR in about["statement"]
    assert read_about_pixels(beside.with_name(f"{beside.stem}.nii.gz"))["nearness"]["flagged"] is True


class _Refusing:
    """A gate that takes every image for a copy."""

    def risk(self, image: object) -> CopyRisk:
        return CopyRisk(0.1, 0.2)


@pytest.mark.parametrize(
    "options",
    [
        ("--format", "png", "--show-scales"),
        ("--format", "png16"),
        ("--format", "nifti"),
        ("--format", "dicom"),
        ("--stack", 3),
        ("--stack", 3, "--format", "dicom"),
    ],
)
def test_a_withheld_image_leaves_no_older_one_of_its_name(
    medvar: Medvar, pair_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...]
) -> None:
    """Nothing would tell an image of another model, or of other settings, from those of the new run."""
    asked = ("generate", "--bundle", pair_bundle.path, "--out", tmp_path, *NAMED, *options)
    assert medvar(*asked).code == 0
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(CopyScreen, "of", lambda _, asked: CopyScreen("withhold", _Refusing()))  # type: ignore[arg-type]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) >= 3
    assert medvar(*asked).code == 1  # not without --overwrite
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    run = medvar(*asked, "--overwrite")
    assert run.code == 1
    assert ("was removed" in " ".join(run.err.split())) == ("--stack" in options)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["png", "nifti", "dicom"])
def test_files_of_others_stay_when_an_image_is_withheld(
    medvar: Medvar, pair_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A drawing or a scan would be lost for nothing, or pass for the image of the seed without a word."""
    monkeypatch.setattr(CopyScreen, "of", lambda _, asked: CopyScreen("withhold", _Refusing()))  # type: ignore[arg-type]
    ending = {"png": ".png", "nifti": ".nii.gz", "dicom": ".dcm"}[name]
    mine = [tmp_path / f"ct-abdomen-axial-seed0{end}" for end in (ending, f"-mask{ending}", ".json")]
    for path in mine:
        path.write_text("{}")
    asked = ("generate", "--bundle", pair_bundle.path, "--out", tmp_path, *NAMED, "--format", name)
    run = medvar(*asked, "--overwrite")
    assert run.code == 1
    assert "stays: medvar did not write it" in " ".join(run.err.split())
    assert [path.read_text() for path in mine] == ["{}"] * 3


def test_slices_of_others_stay_when_a_stack_is_withheld(
    medvar: Medvar, pair_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan with numbered slices would be lost, and nothing written in its place."""
    asked = ("generate", "--bundle", pair_bundle.path, "--out", tmp_path, *NAMED, "--stack", 3, "--format", "dicom")
    assert medvar(*asked).code == 0
    (mine,) = tmp_path.rglob("0001.dcm")
    mine.write_text("{}")
    monkeypatch.setattr(CopyScreen, "of", lambda _, asked: CopyScreen("withhold", _Refusing()))  # type: ignore[arg-type]
    run = medvar(*asked, "--overwrite")
    assert run.code == 1
    assert "holds files that medvar did not write, which stay" in " ".join(run.err.split())
    assert [path.name for path in mine.parent.iterdir()] == ["0001.dcm"]
    assert mine.read_text() == "{}"
