"""The verbs that make a bundle: `prepare`, `train`, `export`, `import-var`, one by one and in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.generate.generator import Generator
from medvar_engine.models import presets
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import TransformerConfig
from medvar_engine.write.provenance import read_trace

Medvar = Callable[..., Any]
Weights = tuple[Path, Path]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """MR of the brains of two patients, as NIfTI: ellipsoids with some texture."""
    (tmp_path / "scans").mkdir()
    axes = np.meshgrid(*(np.linspace(-1, 1, 44),) * 3, indexing="ij")
    for i, patient in enumerate(("alice", "bob")):
        radius = sum((axis / (0.8 + 0.05 * i)) ** 2 for axis in axes)
        texture = np.random.default_rng(i).integers(0, 50, radius.shape)
        volume = np.where(radius < 1, 300 + 400 * (axes[0] > 0) + texture, 0).astype(np.int16)
        image = nibabel.Nifti1Image(volume, np.diag([4.0, 4.0, 4.0, 1.0]))
        nibabel.save(image, tmp_path / "scans" / f"{patient}.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo preset that trains and exports in seconds, of the same kind as the real one."""
    tokenizer = TokenizerConfig(32, (1, 2, 4, 8), 32, 4, (8, 16), res_blocks=1, groups=4, patch=2, linear_path=True)
    monkeypatch.setitem(presets.TOKENIZERS, "demo", tokenizer)
    preset = presets.transformer_preset

    def small(*arguments: Any) -> TransformerConfig:
        return dataclasses.replace(preset(*arguments), depth=2, width=16, heads=2)

    monkeypatch.setattr("medvar_engine.train.stages.transformer_stage.transformer_preset", small)


@pytest.mark.usefixtures("small_preset")
def test_from_scans_to_a_synthetic_image(medvar: Medvar, scans: Path, tmp_path: Path) -> None:
    """The tutorial would fail at some step: what one verb writes, the next could not read."""
    slices, runs, bundle, out = (tmp_path / name for name in ("slices", "runs", "bundle", "out"))
    kind = ("--modality", "MR", "--region", "brain", "--plane", "axial", "--licence", "CC0-1.0")
    prepared = medvar("prepare", scans, slices, "--size", 32, *kind)
    assert prepared.code == 0, prepared.err
    assert prepared.lines == [str(slices)]
    assert "MR brain axial" in prepared.err

    quick = ("steps=3", "batch_size=2", "validate_every=3", "validate_slices=2", "variants=2", "device=cpu")
    tokenizer = medvar("train", "stage=tokenizer", f"data={slices}", f"out={runs / 'tokenizer'}", *quick)
    assert tokenizer.code == 0, tokenizer.err
    first = Path(tokenizer.lines[-1])
    transformer = medvar(
        "train", "stage=transformer", f"data={slices}", f"tokenizer={first}", f"out={runs / 'transformer'}", *quick
    )
    assert transformer.code == 0, transformer.err
    second = Path(transformer.lines[-1])
    assert (first.name, second.name) == ("tokenizer.safetensors", "transformer.safetensors")

    logs = [option for run in ("tokenizer", "transformer") for option in ("--log", runs / run / "log.csv")]
    exported = medvar("export", first, second, bundle, "--licence", "CC0-1.0", "--data", slices, *logs, "--top-k", 20)
    assert exported.code == 0, exported.err
    about = read_bundle(bundle)
    assert (about.name, about.licence, about.sampling.top_k) == ("bundle", "CC0-1.0", 20)
    (slice_type,) = about.slice_types
    assert (slice_type.condition, slice_type.patients, slice_type.unit) == (
        Condition("MR", "brain", "axial"),
        1,
        "arbitrary",
    )
    assert slice_type.spacing_mm == pytest.approx(44 * 4 / 32)
    assert "| psnr |" in about.card
    assert "| loss |" in about.card

    kind = ("--region", "brain", "--plane", "axial")
    made = medvar("generate", "--bundle", bundle, "--out", out, *kind, "--format", "nifti")
    assert made.code == 0, made.err
    trace = read_trace(out / "brain-axial-seed0.nii.gz")
    assert trace.pyramid.complete
    Generator(OnnxBackend(about, device="cpu")).restore([trace])

    refused = medvar("train", "stage=tokenizer", f"data={slices}", f"out={runs / 'tokenizer'}", *quick)
    assert refused.code == 1
    assert "--resume" in refused.err
    resumed = medvar("train", "stage=tokenizer", f"data={slices}", f"out={runs / 'tokenizer'}", *quick, "--resume")
    assert (resumed.code, resumed.lines) == (0, [str(first)])


def test_prepare_needs_scans(medvar: Medvar, tmp_path: Path) -> None:
    """A wrong folder would give an empty set of slices."""
    (tmp_path / "empty").mkdir()
    for source, says in (("empty", "No images found"), ("nowhere", "does not exist")):
        run = medvar("prepare", tmp_path / source, tmp_path / "out")
        assert (run.code, run.out) == (1, "")
        assert says in run.err
    assert not (tmp_path / "out").exists()


def test_prepare_reports_unknown_facts(medvar: Medvar, scans: Path, tmp_path: Path) -> None:
    """NIfTI files do not name the body part: the options that help would stay unknown."""
    run = medvar("prepare", scans, tmp_path / "out")
    assert run.code == 1
    assert "modality and region is not known" in run.err
    assert not (tmp_path / "out").exists()


def test_prepare_reports_refused_files(medvar: Medvar, scans: Path, tmp_path: Path) -> None:
    """A damaged scan would go missing without a word."""
    content = (scans / "alice.nii.gz").read_bytes()
    (scans / "carol.nii.gz").write_bytes(content[: len(content) // 2])
    run = medvar("prepare", scans, tmp_path / "out", "--modality", "MR", "--region", "brain", "--size", 32)
    assert run.code == 0, run.err
    assert "refused carol.nii.gz:" in run.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("stage=tokenizer", "data=slices", "out=run", "epochs=3"), "Unknown setting 'epochs'"),
        (("stage=tokenizer", "data=slices"), "Missing setting 'out'"),
        (("stage=both", "data=slices", "out=run"), "'both'"),
        (("stage=transformer", "data=slices", "out=run"), "needs a trained tokenizer"),
        (("stage=tokenizer", "data=slices", "out=run", "steps=many"), "steps must be a whole number"),
        (("nowhere.toml",), "no config file"),
        (("stage=tokenizer", "data=slices", "out=run", "device=cpu"), "medvar prepare"),
        (("stage=tokenizer", "data=slices", "out=run", "steps"), "name=value"),
    ],
)
def test_train_says_which_setting_is_wrong(
    medvar: Medvar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    """A mistake in a configuration would be a traceback, or found out after hours."""
    monkeypatch.chdir(tmp_path)
    run = medvar("train", *arguments)
    assert (run.code, run.out) == (1, "")
    assert says in run.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("traced")
def test_export_from_weights_alone(medvar: Medvar, tiny_weights: Weights, tmp_path: Path) -> None:
    """Weights that came without their slices could not become a bundle; or its card would claim what nobody said."""
    (tmp_path / "notes.md").write_text("Größe matters.", encoding="utf-8")
    run = medvar(
        *("export", *tiny_weights, tmp_path / "out", "--licence", "MIT", "--name", "random"),
        *("--notes", tmp_path / "notes.md", "--guidance", 3, "--top-p", 0.9, "--precision", "float16-weights"),
    )
    assert run.code == 0, run.err
    assert run.lines == [str(tmp_path / "out")]
    bundle = read_bundle(tmp_path / "out")
    assert (bundle.name, bundle.precision, bundle.sampling.guidance) == ("random", "float16-weights", 3)
    assert bundle.training_data.startswith("Not stated")
    assert "Größe matters." in bundle.card
    again = medvar("export", *tiny_weights, tmp_path / "out", "--licence", "MIT")
    assert again.code == 1
    assert "exists already" in again.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere.safetensors", "{1}"), "There is no file nowhere.safetensors"),
        (("{1}", "{0}"), "a tokenizer is needed"),
        (("text.txt", "{1}"), "not a complete safetensors file"),
        (("{0}", "{1}", "--precision", "int4"), "int4"),
        (("{0}", "{1}", "--top-p", "2"), "top_p"),
        (("{0}", "{1}", "--notes", "nowhere.md"), "nowhere.md"),
        (("{0}", "{1}", "--data", "nowhere"), "medvar prepare"),
    ],
)
def test_export_says_what_is_wrong(
    medvar: Medvar,
    tiny_weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    """The last step after a long training would be a traceback."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("no weights")
    given = [argument.format(*tiny_weights) for argument in arguments]
    run = medvar("export", *given[:2], "out", *given[2:], "--licence", "MIT")
    assert (run.code, run.out) == (1, "")
    assert says in run.err
    assert not Path("out").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 broken"])
def test_import_refuses_other_files(medvar: Medvar, tmp_path: Path, content: bytes) -> None:
    """A download page saved in place of the weights would be a traceback."""
    (tmp_path / "vae.pth").write_bytes(content)
    run = medvar("import-var", tmp_path / "vae.pth", tmp_path / "out")
    assert (run.code, run.out) == (1, "")
    assert "vae.pth is not a plain PyTorch state dict" in run.err
    assert not (tmp_path / "out").exists()
