"""`medvar generate` and `medvar info`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import find_bundle, manifest_digest, read_bundle
from medvar_engine.bundle.sign import sign_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.request import Sampling
from medvar_engine.write.provenance import read_trace

CHEST = ("--modality", "CT", "--region", "chest", "--plane", "axial")
Generate = Callable[..., Any]


@pytest.fixture
def generate(medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> Generate:
    """`medvar generate` with the tiny bundle, into ``tmp_path/out``."""

    def run(*arguments: object, bundle: Path = tiny_bundle, out: Path = tmp_path / "out") -> Any:
        return medvar("generate", "--bundle", bundle, "--out", out, "--device", "cpu", *arguments)

    return run


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_png_can_be_made_again(generate: Generate, tiny_onnx: OnnxBackend, tmp_path: Path) -> None:
    """What a file says of itself would not be what made it."""
    run = generate(*CHEST, "--seed", 7, "--guidance", 2, "--top-k", 9)
    assert run.code == 0, run.err
    assert run.lines == [str(tmp_path / "out" / "ct-chest-axial-seed7.png")]
    assert "CPUExecutionProvider" in run.err
    trace = read_trace(Path(run.lines[0]))
    asked = Request(Condition("CT", "chest", "axial"), 7, Sampling(guidance=2, top_k=9))
    assert (trace.request, trace.bundle_id) == (asked, tiny_onnx.info.bundle_id)
    generator = Generator(tiny_onnx)
    again = generator.finish(generator.start([asked]))
    assert trace.pyramid == again.pyramid
    pixels = np.rint((generator.image(again)[0] + 1) * 127.5)
    np.testing.assert_allclose(np.asarray(Image.open(run.lines[0])), pixels, atol=1)
    assert generator.restore([trace]).pyramid == again.pyramid


def test_without_a_label_it_is_the_default_of_the_bundle(
    generate: Generate, medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    """The first image that somebody makes would be of what the model is worst at, or of nothing in particular."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    manifest["default_condition"] = {"modality": "CT", "region": "chest"}
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign_bundle(folder)
    for arguments, condition in (
        ((), Condition("CT", "chest")),
        (("--modality", "CT"), Condition("CT")),
    ):
        run = generate(*arguments, bundle=folder, out=tmp_path / f"out{len(arguments)}")
        assert run.code == 0, run.err
        assert read_trace(Path(run.lines[0])).request.condition == condition
    assert "  default     CT chest" in medvar("info", folder).lines
    manifest["default_condition"] = {"region": "moon"}
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign_bundle(folder)
    with pytest.raises(MedvarError, match="moon"):
        read_bundle(folder)


def test_a_position_alone_is_one_of_the_default_slice_type(generate: Generate) -> None:
    """The image would be of nothing in particular, because only its position was asked for."""
    shipped = find_bundle()
    run = generate("--position", "0.4", bundle=shipped)
    assert run.code == 0, run.err
    default = read_bundle(shipped).default_condition
    assert default is not None
    assert read_trace(Path(run.lines[0])).request.condition == replace(default, position=0.4)


def test_a_nifti_has_units_and_a_sidecar(generate: Generate, tmp_path: Path) -> None:
    """A CT slice would open without HU or millimetres."""
    run = generate(*CHEST, "--format", "nifti")
    assert files(tmp_path / "out") == ["ct-chest-axial-seed0.json", "ct-chest-axial-seed0.nii.gz"]
    assert sorted(map(Path, run.lines)) == sorted((tmp_path / "out").iterdir())
    image = nibabel.load(tmp_path / "out" / "ct-chest-axial-seed0.nii.gz")
    assert image.shape == (16, 16, 1)
    assert image.header.get_zooms()[0] == pytest.approx(0.75)
    values = np.asarray(image.dataobj)
    assert -1000 <= values.min() < values.max() <= 400
    assert read_trace(tmp_path / "out" / "ct-chest-axial-seed0.nii.gz").pyramid.complete


def test_a_contact_sheet_shows_every_scale(generate: Generate, tmp_path: Path) -> None:
    """Nobody would see the image grow."""
    run = generate("--show-scales", "--format", "nifti")
    assert files(tmp_path / "out") == ["seed0-scales.png", "seed0.json", "seed0.nii.gz"]
    assert str(tmp_path / "out" / "seed0-scales.png") in run.lines
    sheet = Image.open(tmp_path / "out" / "seed0-scales.png")
    assert min(sheet.size) > 2 * 16
    assert read_trace(tmp_path / "out" / "seed0-scales.png").request.seed == 0


def test_a_set_as_dicom_is_one_study(generate: Generate, tmp_path: Path) -> None:
    """An archive would scatter the images of one call over patients; or they could not be made again."""
    assert generate(*CHEST, "--format", "dicom", "--count", 3).code == 0
    datasets = [pydicom.dcmread(tmp_path / "out" / name) for name in files(tmp_path / "out")]
    assert [d.SeriesNumber for d in datasets] == [1, 2, 3]
    assert len({d.StudyInstanceUID for d in datasets}) == 1
    assert {d.SyntheticData for d in datasets} == {"YES"}
    assert read_trace(tmp_path / "out" / "ct-chest-axial-seed2.dcm").request.seed == 2


def test_the_batch_changes_nothing(generate: Generate, tmp_path: Path) -> None:
    """Image 3 of 5 could not be made alone, or memory would decide what is drawn."""
    together = generate("--count", 5, "--batch", 2, "--seed", 3, "--region", "brain")
    assert [Path(line).name for line in together.lines] == [f"brain-seed{seed}.png" for seed in range(3, 8)]
    alone = generate("--seed", 6, "--region", "brain", out=tmp_path / "alone")
    one, other = Path(together.lines[3]), Path(alone.lines[0])
    assert read_trace(one).pyramid == read_trace(other).pyramid
    assert len({read_trace(Path(line)).pyramid.digest(0) for line in together.lines}) == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--region", "brian"), "Did you mean 'brain'?"),
        (("--modality", "PET"), "This model knows: CT, MR"),
        (("--dataset", "some"), "not conditioned on dataset"),
        (("--top-p", "0"), "top_p must be above 0"),
        (("--top-p", "nan"), "top_p must be above 0"),
        (("--top-k", "-1"), "top_k must be"),
        (("--guidance", "-1"), "guidance must be"),
        (("--temperature", "1e-9"), "temperature must be"),
        (("--seed", str(2**64)), "A seed must be"),
        (("--seed", str(2**64 - 1), "--count", "2"), "A seed must be"),
    ],
)
def test_impossible_requests_are_refused(
    generate: Generate, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """A mistake would be a traceback, another image than asked for, or an empty folder."""
    run = generate(*arguments)
    assert (run.code, run.out) == (1, "")
    assert says in run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["step.onnx", "decode.onnx", "bundle.json"])
def test_a_damaged_bundle(generate: Generate, tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    """A broken download would be a traceback, or run."""
    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    content = (broken / name).read_bytes()
    (broken / name).write_bytes(content[: len(content) // 2])
    run = generate(bundle=broken)
    assert (run.code, run.out) == (1, "")
    assert name in run.err
    assert not (tmp_path / "out").exists()


def test_a_missing_bundle_is_reported(generate: Generate, tmp_path: Path) -> None:
    """A mistyped name would be a traceback."""
    run = generate(bundle=tmp_path / "nowhere")
    assert run.code == 1
    assert "is not a bundle" in run.err


@pytest.mark.parametrize(
    ("mine", "arguments"),
    [
        ("seed1.png", ()),
        ("seed1.nii.gz", ("--format", "nifti")),
        ("seed1.json", ("--format", "nifti")),
        ("seed1.dcm", ("--format", "dicom")),
        ("seed1-scales.png", ("--show-scales",)),
    ],
)
def test_existing_files_are_not_overwritten(
    generate: Generate, tmp_path: Path, mine: str, arguments: tuple[str, ...]
) -> None:
    """Somebody's earlier image would be gone, or half of a batch written before saying so."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / mine).write_text("mine")
    refused = generate("--count", 2, *arguments)
    assert (refused.code, refused.out) == (1, "")
    assert "--overwrite" in refused.err
    assert files(tmp_path / "out") == [mine]
    assert (tmp_path / "out" / mine).read_text() == "mine"
    assert generate("--count", 2, "--overwrite", *arguments).code == 0
    assert (tmp_path / "out" / mine).read_bytes() != b"mine"


def test_an_unwritable_folder_is_reported(generate: Generate, tmp_path: Path) -> None:
    """A long run would end in a traceback."""
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        run = generate(out=out)
        assert (run.code, run.out) == (1, "")
        assert "Cannot create the folder" in run.err
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_cuda_is_reported(generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the GPU would wait for the CPU without knowing."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    run = generate("--device", "cuda")
    assert run.code == 1
    assert "CUDA was requested" in run.err


def test_info_describes_a_bundle(medvar: Callable[..., Any], tiny_bundle: Path, tiny_onnx: OnnxBackend) -> None:
    """Nobody could find out which labels a bundle takes, or whom it was trained on."""
    run = medvar("info", tiny_bundle)
    assert run.code == 0
    for word in (
        "tiny",
        "16×16",
        "abdomen, brain, chest",
        "float32",
        "MIT",
        "Random weights",
        "away from the model without a condition",
        tiny_onnx.info.bundle_id,
    ):
        assert word in run.out
    assert medvar("info", tiny_bundle / "bundle.json").out == run.out
    assert medvar("info", tiny_bundle, "--card").out == "# tiny\n\n"


def test_many_labels_are_abbreviated(medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    """A model of 1000 classes would fill the terminal with their names, also after a typing mistake."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["labels"]["dataset"] = [f"class-{i:03}" for i in range(1000)]
    manifest["digest"] = manifest_digest(manifest)
    (copy / "bundle.json").write_text(json.dumps(manifest))
    info = medvar("info", copy)
    assert "class-000, class-001, class-002, …, class-999 (1000 names)" in info.out
    wrong = medvar("generate", "--bundle", copy, "--dataset", "class-45")
    assert "Did you mean 'class-" in wrong.err
    assert len(wrong.err) < 300


def test_info_finds_damage_anywhere(medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    """A graph that only editing needs would turn out broken in the middle of the work."""
    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    (broken / "encode.onnx").unlink()
    run = medvar("info", broken)
    assert run.code == 1
    assert "encode.onnx" in run.err


def test_info_describes_an_image(medvar: Callable[..., Any], generate: Generate, tiny_onnx: OnnxBackend) -> None:
    """A file found years later could not be explained."""
    (path,) = generate(*CHEST, "--seed", 5).lines
    run = medvar("info", path)
    assert run.code == 0
    for word in ("synthetic", "CT chest axial", "seed        5", "guidance 1.5", "4 of 4", tiny_onnx.info.bundle_id):
        assert word in run.out
    assert "edits" not in run.out


def test_info_refuses_other_files(medvar: Callable[..., Any], tmp_path: Path) -> None:
    """Any other image would be a traceback."""
    Image.new("L", (4, 4)).save(tmp_path / "foreign.png")
    (tmp_path / "text.txt").write_text("hello")
    for name in ("foreign.png", "text.txt"):
        run = medvar("info", tmp_path / name)
        assert (run.code, run.out) == (1, "")
        assert "no MedVAR trace" in run.err
