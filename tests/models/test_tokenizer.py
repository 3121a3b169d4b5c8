"""Image ↔ token pyramid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig

MakeTokenizer = Callable[..., Tokenizer]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_channels": 3},
        {"attention": False},
        {"patch": 2, "image_size": 32},
        {"linear_path": True, "patch": 2, "image_size": 32},
        {"res_blocks": 2, "channels": (32, 64), "image_size": 8, "phis": 1},
    ],
)
def test_image_to_tokens_and_back(make_tokenizer: MakeTokenizer, changes: dict[str, object]) -> None:
    """Every configuration a recipe can ask for has to give an image of the size it promises."""
    model = make_tokenizer(**changes)
    config = model.config
    image = torch.rand(2, config.image_channels, config.image_size, config.image_size) * 2 - 1
    with torch.no_grad():
        tokens = model.encode(image)
        decoded = model.decode(model.quantizer.decode(tokens))
    assert [tuple(t.shape) for t in tokens] == [(2, 1), (2, 4), (2, 9), (2, 16)]
    assert all(int(t.min()) >= 0 and int(t.max()) < config.vocabulary for t in tokens)
    assert decoded.shape == image.shape
    assert float(decoded.abs().max()) <= 1


def test_training_and_encoding_see_the_same_image(tokenizer: Tokenizer) -> None:
    """The reconstruction in the training log has to be the image that encoding and decoding give a user."""
    image = torch.rand(2, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        reconstruction, quantized = tokenizer(image)
        tokens = tokenizer.encode(image)
        decoded = tokenizer.decode(tokenizer.quantizer.decode(tokens))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(quantized.tokens, tokens, strict=True))
    torch.testing.assert_close(reconstruction.clamp(-1, 1), decoded, rtol=0, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch(tokenizer: Tokenizer) -> None:
    """One slice of a volume has to be coded alike whatever is encoded beside it."""
    image = torch.rand(3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.latent(image)[1:2], tokenizer.latent(image[1:2]), rtol=0, atol=1e-5)


def test_every_weight_learns(make_tokenizer: MakeTokenizer) -> None:
    """A layer without gradient would be dead weight that nobody notices in a long training."""
    model = make_tokenizer(patch=2, image_size=32, linear_path=True).train()
    reconstruction, quantized = model(torch.rand(2, 1, 32, 32) * 2 - 1)
    (reconstruction.square().mean() + quantized.loss).backward()
    learning = [(name, p.grad) for name, p in model.named_parameters() if p.requires_grad]
    silent = [name for name, gradient in learning if gradient is None or not gradient.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize(("image_size", "side"), [(20, "10"), (17, r"8\.5")])
def test_sizes_that_disagree_are_refused(image_size: int, side: str) -> None:
    """Whoever writes a recipe with a wrong image size has to read which numbers disagree, before training."""
    message = f"image_size {image_size}, patch 1 and 2 resolutions .* side {side}, .* ends at 8"
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(
            image_size=image_size, schedule=(1, 8), vocabulary=4, latent_channels=4, channels=(8, 8), res_blocks=1
        )
