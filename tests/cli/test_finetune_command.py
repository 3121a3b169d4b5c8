"""`medvar finetune`: a bundle and slices become a bundle that says whose child it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from medvar_engine.bundle.add_files import add_to_bundle
from medvar_engine.bundle.read import GUIDE, PREVIEW, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_transformer, save_transformer
from medvar_engine.train.finetune import DataAmount, describe_plan, finetune, settings
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.transformer_stage import TransformerStage
from medvar_engine.types import FloatArray
from medvar_export.write_bundle import Description, export_bundle

Medvar = Callable[..., Any]
Weights = tuple[Path, Path]
QUICK = ("--steps", 2, "batch_size=2", "variants=1", "validate_slices=2", "device=cpu", "precision=float32")


@pytest.fixture
def slices(prepared: Callable[..., Path], tmp_path: Path) -> Path:
    """CT of the chest and MR of the brain of four people, two of them held out."""
    return prepared(tmp_path / "slices", ["ct1", "ct2", "mr1", "mr2"], size=16, holdout=("ct2", "mr2"))


@pytest.mark.usefixtures("traced")
def test_a_bundle_is_fine_tuned(
    medvar: Medvar, gated: Callable[[Path, FloatArray], Path], slices: Path, tmp_path: Path
) -> None:
    """Nobody could adapt the shipped model; or its child would hide where it comes from, forget what it knew, or hand
    out copies of its parent's slices without a word.
    """
    parent = gated(tmp_path / "base", np.eye(16, dtype=np.float32)[None])
    out, base = tmp_path / "mine", add_to_bundle(parent, {PREVIEW: b"a light decoder"})
    run = medvar("finetune", parent, "--data", slices, "--out", out, *QUICK)
    assert run.code == 0, run.err
    assert run.lines[-1] == str(out / "bundle")
    assert "6 training slices of 2 patients" in run.err
    assert "6 slices are few" in run.err
    assert "held-out loss" in run.err
    assert f"medvar gate {out / 'bundle'} --data {slices}" in run.err
    bundle = read_bundle(out / "bundle")
    assert (bundle.name, bundle.licence, bundle.labels) == ("mine", "MIT", base.labels)
    for said in (base.bundle_id, base.training_data, "ct1", "Changes of rank 8", "held-out loss", "minutes"):
        assert said.lower() in bundle.card.lower()
    assert bundle.read(PREVIEW) == b"a light decoder"  # of the same tokenizer, and so as good as before
    chest = bundle.slice_type(Condition("CT", "chest", "axial"))
    assert chest is not None
    assert (chest.slices, chest.patients, chest.spacing_mm) == (70 + 3, 3 + 1, 1.25)  # spacing of the new data
    again = medvar("finetune", parent, "--data", slices, "--out", out, *QUICK)
    assert again.code == 1
    assert "exists already" in again.err


def test_the_guide_is_inherited_and_a_damaged_one_refused_before_training(
    medvar: Medvar, tiny_weights: Weights, slices: Path, tmp_path: Path
) -> None:
    """Guidance would be another than the defaults were chosen for; or training would end without a bundle."""
    base, labels = load_transformer(tiny_weights[1])
    weaker = Transformer(replace(base.config, depth=1, width=8, heads=1))
    save_transformer(tmp_path / "weaker.safetensors", weaker, labels)
    about = Description("guided", "MIT", (), "nobody", "# guided")
    parent = export_bundle(
        *tiny_weights, tmp_path / "parent", about, guide=tmp_path / "weaker.safetensors", log=lambda _: None
    )
    run = medvar("finetune", parent, "--data", slices, "--out", tmp_path / "mine", *QUICK)
    assert run.code == 0, run.err
    made = read_bundle(tmp_path / "mine" / "bundle")
    assert made.guide == read_bundle(parent).guide is not None
    assert "the guide of the base, which was not trained further" in made.card
    (parent / GUIDE).write_bytes((parent / GUIDE).read_bytes()[:-100])
    run = medvar("finetune", parent, "--data", slices, "--out", tmp_path / "other", *QUICK)
    assert run.code == 1
    assert "guide.onnx" in run.err
    assert not (tmp_path / "other" / "run").exists()


@pytest.mark.parametrize("rank", [0, 2])
def test_fine_tuned_weights_change_and_have_no_adapters(
    tiny_weights: Weights, slices: Path, tmp_path: Path, rank: int
) -> None:
    """Low-rank training would leave a file that nothing else reads, or change nothing at all."""
    overrides = [str(part) for part in QUICK if "=" in str(part)]
    config = settings(*tiny_weights, slices, tmp_path / "run", rank=rank, steps=2, overrides=overrides)
    tuned = finetune(config, console=Console(file=io.StringIO()))
    base, names = load_transformer(tiny_weights[1])
    model, known = load_transformer(tuned.transformer)
    assert known == names
    changed = {
        name for (name, a), b in zip(base.named_parameters(), model.parameters(), strict=True) if not torch.equal(a, b)
    }
    assert "head.weight" in changed
    assert ("labels.0.weight" in changed) == (rank == 0)
    assert tuned.before > 0
    assert tuned.before != tuned.after


def test_training_time_covers_all_parts_of_a_run(
    tiny_weights: Weights, slices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card of a model that trained for a day would say that it took minutes, after the last of its restarts."""
    now, stop = 0.0, True
    loss = TransformerStage.loss

    def minute(self: TransformerStage, batch: Batch, step: int) -> tuple[torch.Tensor, Metrics]:
        nonlocal now
        if stop and step == 2:
            raise KeyboardInterrupt
        now += 60
        return loss(self, batch, step)

    monkeypatch.setattr(TransformerStage, "loss", minute)
    monkeypatch.setattr("medvar_engine.train.loop.time", SimpleNamespace(monotonic=lambda: now))
    overrides = [str(part) for part in QUICK if "=" in str(part)]
    config = settings(*tiny_weights, slices, tmp_path / "run", steps=3, overrides=[*overrides, "validate_every=1"])
    with pytest.raises(KeyboardInterrupt):
        finetune(config, console=Console(file=io.StringIO()))
    now, stop = now + 3600, False  # nobody trained meanwhile
    assert finetune(config, resume=True, console=Console(file=io.StringIO())).minutes == 3
    now += 3600
    assert finetune(config, resume=True, console=Console(file=io.StringIO())).minutes == 3  # it was at its end


def test_slices_without_held_out_patients_are_refused(prepared: Callable[..., Path], tmp_path: Path) -> None:
    """Early stopping would have nothing to go by, hours later."""
    folder = prepared(tmp_path / "slices", ["mr1"], size=16, test_fraction=0.0)
    with pytest.raises(MedvarError, match=r"has no held-out patients.*--holdout"):
        DataAmount.of(folder)


def test_new_condition_names_are_reported(
    prepared: Callable[..., Path], tiny_weights: Weights, slices: Path, tmp_path: Path
) -> None:
    """A misspelt region would silently become one that the model has to learn from nothing."""
    assert "New condition names: none" in describe_plan(settings(*tiny_weights, slices, tmp_path / "run"))
    config = settings(*tiny_weights, slices, tmp_path / "run", overrides=["factors=[modality, dataset]"])
    assert "New condition names: dataset some" in describe_plan(config)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("{tokenizer}", "--data", "slices"), "give its tokenizer with --tokenizer"),
        (("{tokenizer}", "--data", "slices", "--tokenizer", "{transformer}"), "with --licence"),
        (("demo", "--data", "slices", "--tokenizer", "{tokenizer}"), "leave out --tokenizer"),
        (("demo", "--data", "slices"), "holds slices of 16×16 pixels, but the model needs 128×128"),
        (("nowhere", "--data", "slices"), "not a bundle"),
        (("{transformer}", "--data", "slices", "--tokenizer", "{tokenizer}", "--licence", "MIT", "epochs=3"), "epochs"),
        (("demo", "--data", "nowhere"), "medvar prepare"),
    ],
)
@pytest.mark.usefixtures("slices")
def test_errors_say_what_is_wrong(
    medvar: Medvar,
    tiny_weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    """A wrong call would be a traceback, or found out after training."""
    monkeypatch.chdir(tmp_path)
    given = [argument.format(tokenizer=tiny_weights[0], transformer=tiny_weights[1]) for argument in arguments]
    run = medvar("finetune", given[0], "--out", "out", *given[1:])
    assert (run.code, run.out) == (1, "")
    assert says in run.err
    assert not (tmp_path / "out" / "bundle").exists()
