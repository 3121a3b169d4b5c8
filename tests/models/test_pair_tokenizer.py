"""A tokenizer of pairs: masks in the same pyramid as images, coded by scales of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_pairs import MASK_SCALES, make_pairs
from torch import Tensor

from medvar_engine.masks.structures import structures_of
from medvar_engine.models.mask_canvas import MaskCanvas, directions
from medvar_engine.models.presets import RESOLUTION_TOKENIZERS, with_masks
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_tokenizer, save_tokenizer
from medvar_engine.train.augment import augment
from medvar_engine.train.stages.mask_losses import dice_of, mask_loss

Networks = tuple[ResolutionTokenizer, Transformer]


def pairs(count: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(make_pairs(count, seed))


@pytest.mark.parametrize(("structures", "channels"), [(1, 2), (4, 3), (15, 6), (24, 6)])
def test_a_drawn_mask_is_read_back(structures: int, channels: int) -> None:
    """A few channels would otherwise not tell many structures apart."""
    masks = torch.randint(0, structures + 1, (3, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    canvas = MaskCanvas(structures, channels)
    torch.testing.assert_close(canvas.scores(canvas.draw(masks)).argmax(1, keepdim=True), masks)


def test_directions_are_far_apart_and_always_the_same() -> None:
    """Half-way between two structures, or after rounding, a third would be found."""
    vectors = directions(16, 6)
    alike = (vectors @ vectors.T).fill_diagonal_(-1)
    assert float(alike.max()) < 0.35
    torch.testing.assert_close(vectors, directions(16, 6), rtol=0, atol=0)


def test_masks_come_back(pair_networks: Networks) -> None:
    """Dice of new masks through the tokenizer, before its refiner has learnt anything."""
    model, new = pair_networks[0], pairs(40)
    out = model.decode(model.quantizer.decode(model.encode(new)))
    assert out.shape == new.shape
    assert float(dice_of(out[:, 1:], new[:, 1:], 2, smallest=10).mean()) > 0.95
    assert float((out[:, 0] - new[:, 0]).abs().mean()) < 0.1


def test_tokens_of_masks_depend_on_masks_only(pair_networks: Networks) -> None:
    """A given mask could not be held while an image is drawn to it."""
    model = pair_networks[0]
    one, other = pairs(3, 1), pairs(3, 2)
    mixed = torch.cat((one[:, :1], other[:, 1:]), 1)
    for k, (a, b, c) in enumerate(zip(*map(model.encode, (one, other, mixed)), strict=True)):
        torch.testing.assert_close(c, b if k in MASK_SCALES else a)
        assert not torch.equal(a, b)


def test_every_scale_says_what_it_adds(pair_networks: Networks) -> None:
    """The codes that are shown, and compared by a digest, would be others than those that are drawn."""
    model = pair_networks[0]
    tokens = model.encode(pairs(2))
    last = len(tokens) - 1
    folded = torch.from_numpy(model.quantizer.codes[last])[tokens[last]].mT.unflatten(2, (4, 4))
    torch.testing.assert_close(model.quantizer.lift(tokens[last], last), folded)
    assert model.quantizer.codes[MASK_SCALES[0]][:, :16].max() == 0  # of the image's channel


def test_files_of_models_without_masks_are_as_before(pair_networks: Networks, tmp_path: Path) -> None:
    """Earlier versions read what is trained without masks; a model of pairs comes back whole."""
    plain = ResolutionTokenizer(ResolutionConfig(16, (1, 2, 4), 8, patch=4, margin=2, refiner_widths=(8, 8)))
    save_tokenizer(tmp_path / "plain.safetensors", plain)
    with safe_open(tmp_path / "plain.safetensors", framework="pt") as file:
        config = json.loads(file.metadata()["medvar"])["config"]
        assert not any("mask" in name for name in (*config, *file.keys()))
    save_tokenizer(tmp_path / "pairs.safetensors", pair_networks[0])
    again = load_tokenizer(tmp_path / "pairs.safetensors")
    assert again.config == pair_networks[0].config
    torch.testing.assert_close(torch.cat(again.encode(pairs(4)), 1), torch.cat(pair_networks[0].encode(pairs(4)), 1))


@pytest.mark.parametrize("size", RESOLUTION_TOKENIZERS)
def test_presets_of_pairs(size: int) -> None:
    """Pairs may cost three tenths more than images: attention, and more scales, add to the cost of tokens."""
    alone = RESOLUTION_TOKENIZERS[size]
    both = with_masks(alone, structures_of(["liver", "spleen"]))
    assert tuple(side for k, side in enumerate(both.schedule) if k not in both.mask_scales) == alone.schedule
    assert both.mask_scales
    count = {config: sum(side**2 for side in config.schedule) for config in (alone, both)}
    assert count[both] <= 1.2 * count[alone]


@pytest.mark.parametrize(("structures", "channels"), [(1, 1), (2, 2), (4, 4), (40, 4)])
def test_a_canvas_has_no_needless_channels(structures: int, channels: int) -> None:
    """M structures and the background are as far apart as they can be in M channels; more only take time."""
    config = with_masks(RESOLUTION_TOKENIZERS[128], structures_of([f"organ {i}" for i in range(structures)]))
    assert config.mask_channels == channels
    if structures == channels:
        vectors = directions(structures + 1, channels)
        alike = (vectors @ vectors.T)[~torch.eye(structures + 1, dtype=torch.bool)]
        torch.testing.assert_close(alike, torch.full_like(alike, -1 / structures), rtol=0, atol=1e-3)


@pytest.mark.parametrize("changes", [{"mask_channels": 0}, {"mask_scales": (3,)}, {"mask_scales": ()}, {"colours": ()}])
def test_incomplete_mask_settings_are_refused(changes: dict[str, object], pair_networks: Networks) -> None:
    """A damaged file must not become a model that fails later."""
    from dataclasses import replace

    with pytest.raises(ValueError, match=r"mask_scales|structures"):
        replace(pair_networks[0].config, **changes)


def test_pairs_are_augmented_together() -> None:
    """A mask that is not moved with its image teaches what is not there."""
    torch.manual_seed(0)
    new = pairs(30)
    changed = augment(new, masks=True)
    assert changed.shape == new.shape
    assert set(np.unique(changed[:, 1])) <= {0.0, 1.0, 2.0}
    assert float((changed[:, 1] != new[:, 1]).float().mean()) > 0.05
    inside = changed[:, 0][changed[:, 1] == 1]
    assert float((inside > 0).float().mean()) > 0.85
    torch.manual_seed(0)
    torch.testing.assert_close(augment(new[:, :1]), changed[:, :1])  # and the image as it would be alone


def test_losses_of_masks() -> None:
    """A perfect mask costs nothing, one that misses a small structure does."""
    masks = pairs(4)[:, 1:]
    scores = torch.nn.functional.one_hot(masks[:, 0].long(), 3).movedim(-1, 1).float() * 30
    assert float(mask_loss(scores, masks)) < 0.01
    missed = scores.clone()
    missed[:, 1] = -30
    assert float(mask_loss(missed, masks)) > 0.5
    assert float(mask_loss(scores[:0], masks[:0])) == 0  # of a step in which all masks are drawn
    assert dice_of(masks, masks, 2, smallest=10).tolist() == [1.0] * 8
    assert len(dice_of(masks, masks, 2, smallest=30)) == 4  # bars alone are that large
