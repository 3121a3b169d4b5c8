"""The refiner learns on tokens as the transformer draws them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from medvar_engine.conditions import LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import load_tokenizer, read_tensors, save_transformer
from medvar_engine.request import Sampling
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run
from medvar_engine.train.stages.drawn_tokens import DrawnTokens

LABELS = LabelSpace(modality=("CT", "MR"), region=("chest",))
SAMPLING = Sampling(guidance=1.0)


@pytest.fixture
def transformer() -> Transformer:
    """One that draws whatever it likes."""
    torch.manual_seed(0)
    return Transformer(TransformerConfig((1, 2, 3, 4), 32, 12, LABELS.sizes, depth=1, width=16, heads=1)).eval()


def test_only_the_finest_scales_of_some_images_are_drawn(
    slices: Path, resolution_file: Path, transformer: Transformer
) -> None:
    """The refiner would be shown another image than the one that it is to give, or none that is drawn."""
    model, data = load_tokenizer(resolution_file), SliceDataset(slices, "train")
    assert isinstance(model, ResolutionTokenizer)
    draws = DrawnTokens(model.quantizer, transformer, LABELS, data, scales=2, sampling=SAMPLING)
    torch.manual_seed(1)
    tokens = model.encode(torch.rand(40, 1, 16, 16) * 2 - 1)
    drawn, which = draws(tokens, torch.zeros(40, dtype=torch.int64))
    assert all(torch.equal(a, b) for a, b in zip(tokens[:2], drawn[:2], strict=True))
    changed = (tokens[3] != drawn[3]).any(1)
    assert int(changed.sum()) == 20
    assert torch.equal((tokens[2] != drawn[2]).any(1), changed)
    assert torch.equal(which, changed)
    with pytest.raises(MedvarError, match=r"drawn_scales .* below 4, not 4"):
        DrawnTokens(model.quantizer, transformer, LABELS, data, scales=4, sampling=SAMPLING)


def test_batches_of_one_image_are_drawn(slices: Path, resolution_file: Path, transformer: Transformer) -> None:
    """A micro-batch of one image would end the run, or would never be drawn."""
    model, data = load_tokenizer(resolution_file), SliceDataset(slices, "train")
    assert isinstance(model, ResolutionTokenizer)
    draws = DrawnTokens(model.quantizer, transformer, LABELS, data, scales=2, sampling=SAMPLING)
    torch.manual_seed(1)
    tokens = model.encode(torch.rand(1, 1, 16, 16) * 2 - 1)
    found = [bool(draws(tokens, torch.zeros(1, dtype=torch.int64))[1]) for _ in range(20)]
    assert 0 < sum(found) < 20


def test_drawn_images_are_compared_at_the_true_scales(
    slices: Path, resolution_file: Path, transformer: Transformer
) -> None:
    """Pixel by pixel, an image without any detail is nearer to the slice than one whose detail was drawn."""
    model = load_tokenizer(resolution_file)
    assert isinstance(model, ResolutionTokenizer)
    draws = DrawnTokens(
        model.quantizer, transformer, LABELS, SliceDataset(slices, "train"), scales=2, sampling=SAMPLING
    )
    images = torch.rand(2, 1, 16, 16)
    fine = images + torch.tensor([[0.3, -0.3], [-0.3, 0.3]]).repeat(8, 8)  # nothing of it is left at 8 pixels
    drawn = torch.tensor([True, False])
    seen, same = draws.certain(fine, drawn), draws.certain(images, drawn)
    torch.testing.assert_close(seen[0], same[0], atol=1e-5, rtol=0)
    assert torch.equal(seen[1], fine[1])


def test_the_refiner_learns_and_tokens_stay(
    make_config: Callable[..., TrainConfig],
    resolution_file: Path,
    transformer: Transformer,
    tmp_path: Path,
    console: Console,
) -> None:
    """A transformer that was trained on these tokens would no longer fit."""
    save_transformer(tmp_path / "transformer.safetensors", transformer, LABELS)
    config = make_config(
        preset="resolution", tokenizer=resolution_file, draw_with=tmp_path / "transformer.safetensors", shipped="last"
    )
    before, after = (read_tensors(path)[0] for path in (resolution_file, run(config, console=console)))
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert all(name.startswith("refiner.") for name in changed)


def test_a_guide_takes_part_in_the_draws(
    make_config: Callable[..., TrainConfig],
    slices: Path,
    resolution_file: Path,
    transformer: Transformer,
    tmp_path: Path,
    console: Console,
) -> None:
    """The refiner of a bundle with a guide would learn to repair images that the bundle never draws."""
    model, data = load_tokenizer(resolution_file), SliceDataset(slices, "train")
    assert isinstance(model, ResolutionTokenizer)
    torch.manual_seed(2)
    guide = Transformer(transformer.config).eval()
    for parameter in guide.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    images, codes = torch.rand(8, 1, 16, 16) * 2 - 1, torch.zeros(8, dtype=torch.int64)

    def drawn(guide: Transformer | None) -> torch.Tensor:
        greedy = Sampling(4.0, top_k=1, coarse_guidance=1.0)
        draws = DrawnTokens(model.quantizer, transformer, LABELS, data, scales=2, sampling=greedy, guide=guide)
        torch.manual_seed(1)
        return torch.cat(draws(model.encode(images), codes)[0], 1)

    assert not torch.equal(drawn(guide), drawn(None))
    for name, network in (("transformer", transformer), ("guide", guide)):
        save_transformer(tmp_path / f"{name}.safetensors", network, LABELS)
    settings = {
        "preset": "resolution",
        "tokenizer": resolution_file,
        "draw_with": tmp_path / "transformer.safetensors",
        "draw_guide": tmp_path / "guide.safetensors",
        "draw_guidance": 1.0,
        "shipped": "last",
    }
    guided, classifier_free = (
        read_tensors(run(make_config(**one, out=tmp_path / f"run-{i}"), console=console))[0]
        for i, one in enumerate((settings, settings | {"draw_guide": None}))
    )
    assert any(not torch.equal(tensor, classifier_free[name]) for name, tensor in guided.items())
    with pytest.raises(MedvarError, match="draw_guide needs draw_with and a draw_guidance above 0"):
        run(make_config(**settings | {"draw_guidance": 0.0}, out=tmp_path / "without"), console=console)
    small = Transformer(TransformerConfig((1, 2, 4), 32, 12, LABELS.sizes, depth=1, width=16, heads=1))
    save_transformer(tmp_path / "small.safetensors", small, LABELS)
    for setting in ("draw_with", "draw_guide"):
        with pytest.raises(MedvarError, match=r"small.safetensors was not trained on tokens of .* token maps"):
            run(
                make_config(**settings | {setting: tmp_path / "small.safetensors"}, out=tmp_path / setting),
                console=console,
            )


def test_pyramids_of_latents_have_no_refiner(make_config: Callable[..., TrainConfig], console: Console) -> None:
    """The setting would be ignored, and nobody would know."""
    with pytest.raises(MedvarError, match="draw_with needs a tokenizer of resolutions"):
        run(make_config(draw_with=Path("transformer.safetensors")), console=console)
