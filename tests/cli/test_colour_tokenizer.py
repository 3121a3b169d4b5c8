"""Models trained on a tokenizer of colour images, such as VAR's, become bundles of gray ones; VAR's own do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medvar_engine.bundle.read import PREVIEW, read_bundle
from medvar_engine.conditions import LabelSpace
from medvar_engine.models.grey import as_grey
from medvar_engine.models.preview_decoder import PreviewDecoder, preview_config
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import (
    load_tokenizer,
    save_preview,
    save_tokenizer,
    save_transformer,
    tokenizer_digest,
)
from medvar_engine.train.token_pyramids import codebook_of

Medvar = Callable[..., Any]
Weights = tuple[Path, Path]
Models = tuple[Tokenizer, Transformer]


@pytest.fixture
def colour(tiny_models: Models, tmp_path: Path) -> Path:
    """A tokenizer of three channels that gives a gray image the tokens, and the image, that the tiny one does."""
    grey = tiny_models[0]
    tensors = grey.state_dict()
    tensors["encoder.conv_in.weight"] = tensors["encoder.conv_in.weight"].repeat(1, 3, 1, 1) / 3
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        tensors[name] = tensors[name].repeat(3, *(1,) * (tensors[name].ndim - 1))
    tokenizer = Tokenizer(dataclasses.replace(grey.config, image_channels=3))
    tokenizer.load_state_dict(tensors)
    save_tokenizer(tmp_path / "colour.safetensors", tokenizer)
    return tmp_path / "colour.safetensors"


@pytest.fixture
def slices(prepared: Callable[..., Path], tmp_path: Path) -> Path:
    """CT of the chest and MR of the brain of four people, two of them held out."""
    return prepared(tmp_path / "slices", ["ct1", "ct2", "mr1", "mr2"], size=16, holdout=("ct2", "mr2"))


@pytest.mark.usefixtures("traced")
def test_a_fine_tuned_model_generates(
    medvar: Medvar, colour: Path, tiny_weights: Weights, slices: Path, tmp_path: Path
) -> None:
    """After hours of learning, `generate` would refuse what came out: a model of three channels."""
    tuned = medvar(
        *("finetune", tiny_weights[1], "--tokenizer", colour, "--licence", "MIT", "--data", slices),
        *("--out", tmp_path / "mine", "--steps", 2, "batch_size=2", "variants=1", "validate_slices=2", "device=cpu"),
    )
    assert tuned.code == 0, tuned.err
    assert read_bundle(tmp_path / "mine" / "bundle").image_channels == 1
    made = medvar("generate", "--bundle", tmp_path / "mine" / "bundle", "--out", tmp_path / "out", "--region", "brain")
    assert made.code == 0, made.err
    assert list((tmp_path / "out").glob("*.png"))


@pytest.fixture
def light(colour: Path, tmp_path: Path) -> Path:
    """A light decoder as stage=preview writes it for that tokenizer."""
    grey, path = as_grey(load_tokenizer(colour)), tmp_path / "preview.safetensors"
    save_preview(path, PreviewDecoder(preview_config(grey.config)), codebook_of(grey), tokenizer_digest(grey))
    return path


@pytest.mark.usefixtures("traced")
def test_a_trained_model_is_exported_as_grey(
    medvar: Medvar, colour: Path, light: Path, tiny_weights: Weights, slices: Path, tmp_path: Path
) -> None:
    """Comparing on held-out slices would be a traceback of torch, or its light decoder another tokenizer's."""
    options = ("--licence", "MIT", "--preview", light)
    for out, data in (("with", ("--data", slices)), ("without", ())):
        run = medvar("export", colour, tiny_weights[1], tmp_path / out, *options, *data)
        assert run.code == 0, run.err
        bundle = read_bundle(tmp_path / out)
        assert bundle.image_channels == 1
        assert PREVIEW in bundle.sha256
        assert ("held_out_loss" in bundle.parity) == bool(data)


def test_the_published_var_stays_in_colour(
    medvar: Medvar, colour: Path, light: Path, tiny_models: Models, tmp_path: Path
) -> None:
    """The published model would lose its colours, or get previews of one channel that nothing can show."""
    labels = LabelSpace(dataset=("imagenet-0000", "imagenet-0001"))
    transformer = Transformer(dataclasses.replace(tiny_models[1].config, labels=labels.sizes, depth=1))
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(std=0.1)
    save_transformer(tmp_path / "var.safetensors", transformer, labels)
    run = medvar("export", colour, tmp_path / "var.safetensors", tmp_path / "out", "--licence", "MIT")
    assert run.code == 0, run.err
    assert read_bundle(tmp_path / "out").image_channels == 3
    refused = medvar("preview", tmp_path / "out", light)
    assert refused.code == 1
    assert "previews of 1 channels, but out images of 3" in refused.err
