"""Which codes should the scales of a pyramid of resolutions have? Fits several kinds to the same slices.

    python benchmarks/token_codebooks.py SLICES [--slices 2000] [--held-out 200] [--refined TOKENIZER] [--out FOLDER]

Own codebooks of 1024, 2048 and 4096 codes a scale, and one of 2048 that all scales share, are fitted by k-means to
training slices. On slices of held-out patients it prints, in dB of mean PSNR: the canvas after each scale, and what is
lost when the codes of the finest scale are drawn blindly, by how often each occurs. The last number is how much of a
finest code its eight neighbours explain (R² of a linear fit, on the first 8 principal components of the codes): what
independent draws throw away. ``--refined`` adds a trained tokenizer of resolutions, with its refiner and without.
``--out`` gets a figure: slices, canvases of each kind, and the same with the finest scale drawn blindly.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.models.presets import tokenizer_preset
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.weight_files import load_tokenizer
from medvar_engine.train.batches import spread
from medvar_engine.train.stages import fit_patches as fitting
from medvar_engine.train.stages.image_grids import write_grid
from medvar_engine.train.stages.image_similarity import psnr

COMPONENTS = 8  # of the codes, that neighbours are asked about
SHOWN = 6  # held-out slices in the figure


def main() -> None:
    """Print a row of the table for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path)
    parser.add_argument("--slices", dest="count", type=int, default=2000, help="training slices to fit to")
    parser.add_argument("--held-out", type=int, default=200, help="slices to measure on")
    parser.add_argument("--codes", type=int, nargs="*", default=[1024, 2048, 4096], help="sizes of own codebooks")
    parser.add_argument("--refined", type=Path, help="a trained tokenizer of resolutions")
    parser.add_argument("--out", type=Path, help="folder for the figure")
    options = parser.parse_args()
    training, held_out = (SliceDataset(options.slices, split) for split in ("train", "test"))
    images = torch.from_numpy(training.batch(spread(len(training), options.count)))
    real = torch.from_numpy(held_out.batch(spread(len(held_out), options.held_out)))
    preset = tokenizer_preset("resolution", training.size)
    assert isinstance(preset, ResolutionConfig)
    kinds = [(f"own, {codes}", replace(preset, vocabulary=codes), False) for codes in options.codes]
    kinds.append((f"shared, {preset.vocabulary}", preset, True))
    print(f"codes | {' | '.join(map(str, preset.schedule))} | finest drawn blindly | neighbours' R²")
    rows = [real[spread(len(real), SHOWN)]]
    for name, config, shared in kinds:
        torch.manual_seed(0)
        model = ResolutionTokenizer(config).eval()
        fit_shared(model, images) if shared else fitting.fit_patches(model.quantizer, model.latent(images), _silent)
        rows += judge(name, model, images, real, refined=False)
    if options.refined:
        trained = load_tokenizer(options.refined)
        assert isinstance(trained, ResolutionTokenizer)
        for refined in (False, True):
            name = "trained, refined" if refined else "trained, not refined"
            rows += judge(name, trained, images, real, refined=refined)
    if options.out:
        write_grid(options.out / "token-codebooks.png", torch.cat(rows), SHOWN)


@torch.no_grad()
def fit_shared(model: ResolutionTokenizer, images: Tensor) -> None:
    """One codebook for all scales: k-means of what the scales leave of each other, twice.

    What a scale leaves depends on the codes, so they are fitted to the blocks of exact coarser scales first.
    """
    quantizer, canvases = model.quantizer, model.latent(images)
    scales = range(len(quantizer.schedule))
    for turn in range(2):
        rest, blocks = canvases.clone(), []
        for k in scales:
            vectors = torch.cat([quantizer.residual(part, k).flatten(0, 1) for part in rest.split(256)])
            blocks.append(vectors[torch.randperm(len(vectors))[: fitting.MOST_VECTORS // len(scales)]])
            for part in rest.split(256):
                left = quantizer.residual(part, k)
                part -= quantizer.lift(quantizer.nearest(left, k), k) if turn else quantizer.lift_blocks(left, k)
        codes = fitting._k_means(torch.cat(blocks), quantizer.vocabulary)
        for k in scales:
            quantizer.patches(k).copy_(codes)


@torch.no_grad()
def judge(name: str, model: ResolutionTokenizer, images: Tensor, real: Tensor, *, refined: bool) -> Sequence[Tensor]:
    """Print one row; gives the canvases of the slices that are shown, and the same drawn blindly."""
    quantizer, last = model.quantizer, len(model.schedule) - 1
    finest = torch.cat([model.encode(part)[last].flatten() for part in images.split(64)])
    frequency = finest.bincount(minlength=quantizer.vocabulary).float()
    decode = model.decode if refined else model.preview
    by_scale, drawn, maps = torch.zeros(last + 1), torch.zeros(()), []
    shown: list[Tensor] = []
    chosen = set(spread(len(real), SHOWN).tolist())
    for start in range(0, len(real), 64):
        part = real[start : start + 64]
        tokens = model.encode(part)
        for k in range(last + 1):
            canvas = quantizer.decode(tokens[: k + 1])
            by_scale[k] += psnr(decode(canvas) if k == last else model.preview(canvas), part).sum()
        draw = torch.multinomial(frequency, tokens[last].numel(), replacement=True).view_as(tokens[last])
        blind = decode(quantizer.decode((*tokens[:last], draw)))
        drawn += psnr(blind, part).sum()
        maps.append(tokens[last])
        own = [i - start for i in chosen if start <= i < start + len(part)]
        shown.append(torch.stack([decode(quantizer.decode(tokens))[own], blind[own]]))
    mean = by_scale / len(real)
    scales = " | ".join(f"{value:.1f}" for value in mean.tolist())
    lost = float(mean[last] - drawn / len(real))
    print(f"{name} | {scales} | -{lost:.1f} | {explained(model, torch.cat(maps)):.2f}", flush=True)
    pairs = torch.cat(shown, 1)
    return [pairs[0], pairs[1]]


def explained(model: ResolutionTokenizer, tokens: Tensor) -> float:
    """R² of a linear fit of the finest codes ``(N, L)`` on those around them; fitted on one half, told of the other."""
    side, codes = model.schedule[-1], model.quantizer.patches(len(model.schedule) - 1)
    centred = codes - codes[tokens.flatten()].mean(0)
    axes = torch.linalg.svd(centred[tokens.flatten()][:20_000], full_matrices=False).Vh[:COMPONENTS]
    grid = (centred @ axes.T)[tokens].transpose(1, 2).unflatten(2, (side, side))
    windows = F.unfold(grid, 3).unflatten(1, (COMPONENTS, 9))  # (N, C, 9, places)
    around = torch.cat([windows[:, :, :4], windows[:, :, 5:]], 2).flatten(1, 2).transpose(1, 2)
    half = len(grid) // 2
    fit, test = ((around[rows].flatten(0, 1), windows[rows, :, 4].transpose(1, 2).flatten(0, 1))
                 for rows in (slice(half), slice(half, None)))  # fmt: skip
    weights = np.linalg.lstsq(fit[0].numpy(), fit[1].numpy(), rcond=None)[0]
    left = np.square(test[1].numpy() - test[0].numpy() @ weights).sum()
    return float(1 - left / np.square(test[1].numpy()).sum())


def _silent(_: str) -> None:
    """Instead of printing."""


if __name__ == "__main__":
    main()
