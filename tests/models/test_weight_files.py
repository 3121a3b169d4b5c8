"""Models as safetensors files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medvar_engine.conditions import LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import (
    load_tokenizer,
    load_transformer,
    read_tensors,
    save_tokenizer,
    save_transformer,
    write_tensors,
)

SPACE = LabelSpace(modality=("CT", "MR", "US"), region=("abdomen", "brain", "chest", "heart", "spine"))


def test_tokenizer_round_trip(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A saved tokenizer has to give the same tokens and images, or trained transformers would not fit it any more."""
    tokenizer.quantizer.get_buffer("usage").uniform_()
    save_tokenizer(tmp_path / "new" / "tokenizer.safetensors", tokenizer)
    loaded = load_tokenizer(tmp_path / "new" / "tokenizer.safetensors")
    assert loaded.config == tokenizer.config
    assert not loaded.training
    image = torch.rand(2, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        tokens = tokenizer.encode(image)
        assert all(torch.equal(a, b) for a, b in zip(loaded.encode(image), tokens, strict=True))
        latent = tokenizer.quantizer.decode(tokens)
        assert torch.equal(loaded.decode(loaded.quantizer.decode(tokens)), tokenizer.decode(latent))
    assert torch.equal(loaded.quantizer.get_buffer("usage"), tokenizer.quantizer.get_buffer("usage"))


def test_transformer_round_trip(tmp_path: Path, transformer: Transformer) -> None:
    """A saved transformer has to draw the same images under the same names of conditions, and can train on."""
    path = tmp_path / "transformer.safetensors"
    save_transformer(path, transformer, SPACE)
    loaded, labels = load_transformer(path)
    assert (loaded.config, labels) == (transformer.config, SPACE)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    label, features = torch.tensor([[1, 4]]), torch.randn(1, 29, 8)
    with torch.no_grad():
        assert torch.equal(loaded(label, features), transformer(label, features))
    path.unlink()  # a loaded model does not hang on its file
    loaded.train()(label, features).sum().backward()


def test_all_weights_are_initialised(tmp_path: Path, tokenizer: Tokenizer, transformer: Transformer) -> None:
    """Models are built without numbers and filled from the file: what files do not hold, such as masks and resize
    matrices, has to be real all the same, or moving the model to a GPU would fail.
    """
    save_tokenizer(tmp_path / "a.safetensors", tokenizer)
    save_transformer(tmp_path / "b.safetensors", transformer, SPACE)
    loaded_transformer, _ = load_transformer(tmp_path / "b.safetensors")
    pairs = ((load_tokenizer(tmp_path / "a.safetensors"), tokenizer), (loaded_transformer, transformer))
    for loaded, original in pairs:
        for (name, ours), (_, theirs) in zip(loaded.named_buffers(), original.named_buffers(), strict=True):
            assert torch.equal(ours, theirs), name
        for (name, ours), (_, theirs) in zip(loaded.named_parameters(), original.named_parameters(), strict=True):
            assert ours.requires_grad == theirs.requires_grad, name


def test_a_file_cut_short_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Whoever broke off a download has to read that, and not a traceback or an image of noise."""
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, tokenizer)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(MedvarError, match="not a complete safetensors file"):
            load_tokenizer(path)


def test_the_wrong_kind_is_refused(tmp_path: Path, tokenizer: Tokenizer, transformer: Transformer) -> None:
    """Two paths given in the wrong order have to be named, not half-loaded."""
    save_tokenizer(tmp_path / "a.safetensors", tokenizer)
    save_transformer(tmp_path / "b.safetensors", transformer, SPACE)
    with pytest.raises(MedvarError, match="contains a tokenizer, but a transformer is needed"):
        load_transformer(tmp_path / "a.safetensors")
    with pytest.raises(MedvarError, match="contains a transformer, but a tokenizer is needed"):
        load_tokenizer(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "metadata", [None, {"medvar": "no json"}, {"medvar": "[1]"}, {"medvar": "{}"}, {"format": "pt"}]
)
def test_foreign_safetensors_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    """Any other program's safetensors file has to be told from ours."""
    write_tensors(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, metadata)
    with pytest.raises(MedvarError, match="was not written by medvar"):
        load_tokenizer(tmp_path / "other.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A mistyped path is the commonest error of all."""
    with pytest.raises(MedvarError, match=r"no file .*nowhere\.safetensors"):
        load_tokenizer(tmp_path / "nowhere.safetensors")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Reading it would never end."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(MedvarError, match="not a regular file"):
        load_tokenizer(tmp_path / "pipe.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["config"].update(depth_of_field=3),  # a field of another version
        lambda values: values["config"].pop("vocabulary"),
        lambda values: values["config"].update(vocabulary=65),
        lambda values: values["config"].update(channels=[32, 32, 33]),
        lambda values: values["config"].update(latent_channels="8"),
        lambda values: values["config"].update(image_size=17),
        lambda values: values.pop("config"),
    ],
)
def test_weights_that_do_not_fit_their_configuration(
    tmp_path: Path, tokenizer: Tokenizer, change: Callable[[dict[str, dict[str, object]]], None]
) -> None:
    """A damaged file, or one of another version, has to be refused with a message and not with a traceback."""
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, tokenizer)
    tensors, metadata = read_tensors(path)
    values = json.loads(metadata["medvar"])
    change(values)
    write_tensors(path, tensors, {"medvar": json.dumps(values)})
    with pytest.raises(MedvarError, match="do not fit its configuration"):
        load_tokenizer(path)


def test_missing_weights_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A layer left at random values would draw noise without a word."""
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, tokenizer)
    tensors, metadata = read_tensors(path)
    del tensors["post_quant_conv.weight"]
    write_tensors(path, tensors, metadata)
    with pytest.raises(MedvarError, match=r"post_quant_conv\.weight"):
        load_tokenizer(path)


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of a night's training must not cost the last good model, nor leave rubbish."""
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, tokenizer)
    before = path.read_bytes()

    def full(tensors: object, temporary: Path, metadata: object) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medvar_engine.models.weight_files.save_file", full)
    with pytest.raises(MedvarError, match=r"Cannot write .*No space left on device"):
        save_tokenizer(path, tokenizer)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_impossible_folder_is_reported(tmp_path: Path) -> None:
    """An output folder that is a file is the user's slip: a message, not a traceback."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(MedvarError, match="Cannot write"):
        write_tensors(tmp_path / "out" / "x.safetensors", {"weight": torch.zeros(2)})


def test_shared_and_strided_tensors_are_stored(tmp_path: Path) -> None:
    """Tied or transposed weights are ordinary in torch, but safetensors refuses them as they are."""
    weight = torch.arange(6.0).view(2, 3)
    write_tensors(tmp_path / "x.safetensors", {"a": weight, "b": weight, "c": weight.T})
    tensors, _ = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["b"], weight)
    assert torch.equal(tensors["c"], weight.T)


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        "deep",
        {"depth": 10**9},
        {"width": 10**15},
        {"schedule": [1, 10**6]},
        {"schedule": None},
        {"labels": [[1]]},
        {"depth": 1e400},
    ],
)
def test_odd_configurations_are_refused_at_once(tmp_path: Path, transformer: Transformer, config: object) -> None:
    """A file of a few kilobytes would ask for a network larger than the machine."""
    save_transformer(tmp_path / "t.safetensors", transformer, SPACE)
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    values = json.loads(metadata["medvar"])
    values["config"] = {**values["config"], **config} if isinstance(config, dict) else config
    text = json.dumps(values).replace('"deep"', "[" * 50_000 + "]" * 50_000)
    write_tensors(tmp_path / "odd.safetensors", tensors, {"medvar": text})
    with pytest.raises(MedvarError, match=r"odd\.safetensors"):
        load_transformer(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("kind", ["int64", "bool", "complex64", "nan", "inf"])
def test_odd_weights_are_refused(tmp_path: Path, transformer: Transformer, kind: str) -> None:
    """Weights that are no numbers would draw images that mean nothing, or fail in the middle of the work."""
    save_transformer(tmp_path / "t.safetensors", transformer, SPACE)
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    if kind in ("nan", "inf"):
        tensors[name].view(-1)[0] = float(kind)
    else:
        tensors[name] = tensors[name].to(getattr(torch, kind))
    write_tensors(tmp_path / "odd.safetensors", tensors, metadata)
    with pytest.raises(MedvarError, match=name.replace(".", r"\.")):
        load_transformer(tmp_path / "odd.safetensors")


def test_half_precision_is_read(tmp_path: Path, transformer: Transformer) -> None:
    """Weights that were stored small would fail in the first product."""
    save_transformer(tmp_path / "t.safetensors", transformer, SPACE)
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    write_tensors(tmp_path / "half.safetensors", {k: t.half() for k, t in tensors.items()}, metadata)
    loaded, _ = load_transformer(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
