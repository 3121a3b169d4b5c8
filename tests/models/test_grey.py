from __future__ import annotations

import pytest
import torch

from medvar_engine.models.grey import as_grey
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig


@pytest.mark.parametrize("patch", [1, 2])
def test_a_colour_tokenizer_for_grey_images_gives_the_same_tokens(patch: int) -> None:
    """The tokenizer published for VAR could not be gone on with, and CT slices would have to be stored three times."""
    torch.manual_seed(0)
    config = TokenizerConfig(
        8 * patch, (1, 2, 4), 64, 4, (8, 16), res_blocks=1, groups=4, image_channels=3, patch=patch, linear_path=True
    )
    colour = Tokenizer(config).eval()
    grey = as_grey(colour)
    image = torch.rand(2, 1, 8 * patch, 8 * patch) * 2 - 1
    with torch.no_grad():
        tokens, expected = grey.encode(image), colour.encode(image.expand(-1, 3, -1, -1))
        for ours, its in zip(tokens, expected, strict=True):
            assert torch.equal(ours, its)
        latent = colour.quantizer.decode(expected)
        decoded = colour._reconstruct(latent).mean(1, keepdim=True)
        torch.testing.assert_close(grey._reconstruct(latent), decoded, rtol=1e-5, atol=1e-5)
    assert as_grey(grey) is grey
