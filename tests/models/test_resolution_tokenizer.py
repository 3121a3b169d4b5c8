"""The pyramid of resolutions: thumbnails of an image, each sharper than the one before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medvar_engine.errors import MedvarError
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer, with_grain
from medvar_engine.models.weight_files import load_tokenizer, load_transformer, save_tokenizer, tokenizer_kind

CONFIG = ResolutionConfig(
    16, (1, 2, 3, 4), 32, feature_channels=12, patch=4, margin=2, refiner_widths=(8, 16), refiner_blocks=1
)


@pytest.fixture
def tokenizer() -> ResolutionTokenizer:
    """Random patches and weights: nothing is zero that could hide a mistake."""
    model = ResolutionTokenizer(CONFIG).eval()
    state = {name: torch.randn_like(tensor) * 0.3 for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 1, 16, 16) * 2 - 1


def test_scales_add_up_to_the_canvas(tokenizer: ResolutionTokenizer) -> None:
    """Editing a scale would change more than that scale's share of the image."""
    tokens = tokenizer.encode(images())
    assert [tuple(t.shape) for t in tokens] == [(3, n * n) for n in CONFIG.schedule]
    total = sum(tokenizer.quantizer.lift(t, k) for k, t in enumerate(tokens))
    torch.testing.assert_close(total, tokenizer.quantizer.decode(tokens))


def test_every_token_is_the_nearest_patch_of_what_is_left(tokenizer: ResolutionTokenizer) -> None:
    """Written again from the definition: area means, differences to every patch, bicubic enlargement."""
    image = images(2)
    rest = image.clone()
    for k, (n, found) in enumerate(zip(CONFIG.schedule, tokenizer.encode(image), strict=True)):
        small = F.interpolate(rest, size=(4 * n, 4 * n), mode="area")
        enlarged = torch.zeros_like(small)
        for b in range(2):
            for row in range(n):
                for column in range(n):
                    block = small[b, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                    patches = tokenizer.quantizer.patches(k).view(-1, 4, 4)
                    distances = (patches - block).square().sum((1, 2))
                    chosen = found[b, row * n + column]
                    assert distances[chosen] <= distances.min() + 1e-5
                    enlarged[b, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = patches[chosen]
        rest = rest - F.interpolate(enlarged, size=(16, 16), mode="bicubic", align_corners=False)


def test_features_are_those_of_each_canvas(tokenizer: ResolutionTokenizer) -> None:
    """Training would show the transformer something else than generating does."""
    tokens = tokenizer.encode(images())
    quantizer, canvas, parts = tokenizer.quantizer, torch.zeros(3, 16, 4, 4), []
    for k, token_map in enumerate(tokens[:-1]):
        canvas = canvas + quantizer.lift(token_map, k)
        parts.append(quantizer.pool(canvas, k + 1))
        assert parts[-1].shape == (3, CONFIG.schedule[k + 1] ** 2, 12)
    torch.testing.assert_close(quantizer.scale_features(tokens), torch.cat(parts, 1))


def test_a_feature_depends_on_its_block_and_margin_alone(tokenizer: ResolutionTokenizer) -> None:
    """The features of a token would mix with places that it does not stand for."""
    image = torch.zeros(1, 1, 16, 16, requires_grad=True)
    tokenizer.quantizer.pool(tokenizer.latent(image), 3)[0, 5].square().sum().backward()  # row 1, column 1
    assert image.grad is not None
    touched = image.grad[0, 0] != 0
    assert touched[2:10, 2:10].any()
    touched[2:10, 2:10] = False
    assert not touched.any()


def test_a_new_refiner_changes_nothing() -> None:
    """Before it has learned, the image would be worse than the canvas."""
    fresh = ResolutionTokenizer(CONFIG)
    canvas = fresh.latent(images())
    assert torch.equal(fresh.decode(canvas), fresh.preview(canvas))


def test_grain_begins_faint_and_leaves_the_rest(tokenizer: ResolutionTokenizer) -> None:
    """A trained refiner would have to learn everything once more."""
    grainy, image = with_grain(tokenizer), images()
    canvas = tokenizer.latent(image)
    assert grainy.config.grain
    assert with_grain(grainy) is grainy
    assert all(torch.equal(a, b) for a, b in zip(tokenizer.encode(image), grainy.encode(image), strict=True))
    added = grainy(canvas) - tokenizer(canvas)
    assert 0.01 < float(added.detach().std()) < 0.05


def test_the_same_canvas_has_the_same_grain(tokenizer: ResolutionTokenizer) -> None:
    """Same seed, same image, whatever the batch; in training grain moves about, lest its pattern be learned."""
    grainy, canvas = with_grain(tokenizer), tokenizer.latent(images())
    whole = grainy.decode(canvas)
    torch.testing.assert_close(whole[1:2], grainy.decode(canvas[1:2]))
    assert torch.equal(whole, grainy.decode(canvas))
    same = canvas[:1].expand(2, -1, -1, -1)
    first, second = grainy.train()(same)
    plain = tokenizer(same)[0]
    assert not torch.allclose(first, second)
    torch.testing.assert_close((first - plain).sort().values.std(), (second - plain).std())  # the same noise, moved


@pytest.mark.parametrize("size", [128, 192, 256])
def test_sizes_follow_from_the_configuration(size: int) -> None:
    """A preset of a size whose schedule does not end at the image's resolution would fail at the first slice."""
    from medvar_engine.models.presets import tokenizer_preset

    config = tokenizer_preset("resolution", size)
    assert isinstance(config, ResolutionConfig)
    model = ResolutionTokenizer(config)
    tokens = model.encode(torch.zeros(1, 1, size, size))
    assert model.decode(model.quantizer.decode(tokens)).shape == (1, 1, size, size)


def test_another_size_is_refused() -> None:
    """Nobody could tell which sizes there are."""
    from medvar_engine.models.presets import tokenizer_preset

    with pytest.raises(MedvarError, match="128, 192, 256 pixels per side, not 100"):
        tokenizer_preset("resolution", 100)
    with pytest.raises(ValueError, match="must be equal"):
        ResolutionConfig(100, (1, 2, 4), 32)


def test_the_kind_of_a_file_is_known(tokenizer: ResolutionTokenizer, tmp_path: Path) -> None:
    """The other kind of tokenizer would be built around these weights."""
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, tokenizer)
    assert tokenizer_kind(path) == "resolution tokenizer"
    again = load_tokenizer(path)
    assert isinstance(again, ResolutionTokenizer)
    assert again.config == CONFIG
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in tokenizer.state_dict().items())
    with pytest.raises(MedvarError, match="contains a resolution tokenizer, but a transformer is needed"):
        load_transformer(path)
