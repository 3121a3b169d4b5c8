"""The light decoder: what it costs, and what its file says of whose latents it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medvar_engine.errors import MedvarError
from medvar_engine.models.presets import TOKENIZERS
from medvar_engine.models.preview_decoder import MAX_COST, PreviewDecoder, cost, preview_config
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.weight_files import load_preview, load_tokenizer, read_tensors, save_preview, write_tensors

CODEBOOK = "cd" * 32


@pytest.fixture
def preview(tokenizer: Tokenizer) -> PreviewDecoder:
    """A light decoder of random weights for the small tokenizer."""
    return PreviewDecoder(preview_config(tokenizer.config)).eval()


@pytest.mark.parametrize("preset", TOKENIZERS)
def test_it_is_light_for_every_preset(preset: str) -> None:
    """Previews of all scales would cost more than the image that they announce."""
    tokenizer = TOKENIZERS[preset]
    config = preview_config(tokenizer)
    assert 0 < cost(config, tokenizer) <= MAX_COST
    assert cost(replace(config, width=config.width * 8), tokenizer) > MAX_COST  # and no lighter than need be


@pytest.mark.parametrize("channels", [1, 3])
def test_the_light_decoder_resembles_the_full_one(make_tokenizer: Callable[..., Tokenizer], channels: int) -> None:
    """A preview of another size, number of channels or range could not be shown in the image's place."""
    tokenizer = make_tokenizer(image_channels=channels)
    preview = PreviewDecoder(preview_config(tokenizer.config)).eval()
    latent = 100 * torch.randn(3, tokenizer.config.latent_channels, 4, 4)
    with torch.no_grad():
        shown = preview.decode(latent)
        assert shown.shape == tokenizer.decode(latent).shape == (3, channels, 16, 16)
        assert shown.min() >= -1
        assert shown.max() <= 1
        torch.testing.assert_close(preview.decode(latent[1:2]), shown[1:2])  # whatever else is in the batch


def test_round_trip(tmp_path: Path, preview: PreviewDecoder) -> None:
    """What was trained would not be what is exported."""
    save_preview(tmp_path / "preview.safetensors", preview, CODEBOOK)
    loaded, codebook = load_preview(tmp_path / "preview.safetensors")
    assert (loaded.config, codebook, loaded.training) == (preview.config, CODEBOOK, False)
    latent = torch.randn(1, preview.config.latent_channels, 4, 4)
    with torch.no_grad():
        assert torch.equal(loaded(latent), preview(latent))


def test_files_of_different_kinds_are_distinguished(tmp_path: Path, preview: PreviewDecoder) -> None:
    """Light decoder and tokenizer lie in folders alike; one taken for the other would be a traceback."""
    path = tmp_path / "preview.safetensors"
    save_preview(path, preview, CODEBOOK)
    with pytest.raises(MedvarError, match="contains a preview decoder, but a tokenizer is needed"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("config"),
        lambda values: values["config"].update(width=12),
        lambda values: values["config"].update(block=1 << 60),
        lambda values: values["config"].update(block="8"),
        lambda values: values["config"].update(groups=0),
    ],
)
def test_inconsistent_files_are_refused(
    tmp_path: Path, preview: PreviewDecoder, change: Callable[[dict[str, dict[str, object]]], None]
) -> None:
    """A damaged file, or one of another version, has to be refused with a message and not with a traceback."""
    path = tmp_path / "preview.safetensors"
    save_preview(path, preview, CODEBOOK)
    tensors, metadata = read_tensors(path)
    values = json.loads(metadata["medvar"])
    change(values)
    write_tensors(path, tensors, {"medvar": json.dumps(values)})
    with pytest.raises(MedvarError, match=r"preview\.safetensors"):
        load_preview(path)
