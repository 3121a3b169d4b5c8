"""Multi-scale features of images, for classification, search or visualisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medvar_engine.backends.base import BackendInfo
from medvar_engine.conditions import Condition
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request
from medvar_engine.types import FloatArray

GRID = 4  # cells per side to which a latent is averaged


def multiscale_features(generator: Generator, images: FloatArray) -> FloatArray:
    """Features ``(B, D)`` of images ``(B, H, W)``, or ``(B, H, W, 3)``, in [-1, 1]; `feature_names` names the columns.

    They are keys and values of the last blocks of the transformer without a condition (see `Generator.features`), and
    for the latent after each scale, averages over a grid of 4 × 4 and the standard deviation of each channel over all
    positions.
    """
    generation = generator.encode(images, [Request()] * len(images))
    cells = [averaged(latent, GRID).reshape(len(images), -1) for latent in generation.latents]
    spreads = [latent.std(axis=(2, 3)) for latent in generation.latents]
    return np.concatenate([generator.features(generation), *cells, *spreads], axis=1)


def feature_names(info: BackendInfo, columns: int) -> tuple[str, ...]:
    """Names of the ``columns`` of `multiscale_features`.

    ``attention.mean.0`` … and ``attention.std.0`` …: keys and values, over the scales. ``scale3.latent.5.2.0``: the
    latent after scale 3, channel 5, third row, first column. ``scale3.spread.5``: standard deviation of this channel.
    """
    cells, scales = min(GRID, info.schedule.latent_side), range(len(info.schedule))
    places = [(c, y, x) for c in range(info.latent_channels) for y in range(cells) for x in range(cells)]
    latents = [f"scale{k}.latent.{c}.{y}.{x}" for k in scales for c, y, x in places]
    spreads = [f"scale{k}.spread.{c}" for k in scales for c in range(info.latent_channels)]
    kept = (columns - len(latents) - len(spreads)) // 2
    return (*(f"attention.{kind}.{i}" for kind in ("mean", "std") for i in range(kept)), *latents, *spreads)


def likelihood_features(generator: Generator, images: FloatArray, conditions: Sequence[Condition]) -> FloatArray:
    """How much better each condition explains an image than no condition, in bits: ``(B, conditions · scales)``.

    The negative log-likelihood of the tokens of a scale without a condition, minus that with the condition: positive if
    the condition fits. The condition with the largest sum over the scales is a classification (as Li et al. do with a
    diffusion model, arXiv 2303.16203). Costs one pass of the transformer per condition, so images are processed one by
    one; `likelihood_names` names the columns.
    """
    requests = (Request(), *(Request(condition) for condition in conditions))
    rows = []
    for image in images:
        generation = generator.encode(image[None], [Request()]).select([0] * len(requests))
        generation = replace(generation, requests=requests)
        bits = np.stack([scale.sum(axis=(1, 2)) for scale in generator.likelihood(generation)], axis=1)
        generator.cache.clear()  # no image occurs twice, and the prefixes of the next one need the memory
        rows.append((bits[0] - bits[1:]).ravel())
    return np.stack(rows)


def likelihood_names(info: BackendInfo, conditions: Sequence[Condition]) -> tuple[str, ...]:
    """Names of the columns of `likelihood_features`: ``likelihood.MR brain axial.scale3``."""
    return tuple(f"likelihood.{condition}.scale{k}" for condition in conditions for k in range(len(info.schedule)))


def probe_columns(info: BackendInfo, names: Sequence[str]) -> list[int]:
    """The best columns for a linear probe with few patients: all except the latents of coarser scales."""
    finest = f"scale{len(info.schedule) - 1}."
    return [i for i, name in enumerate(names) if ".latent." not in name or name.startswith(finest)]


def averaged(latent: FloatArray, cells: int) -> FloatArray:
    """``(B, C, H, W)`` averaged to at most ``cells`` × ``cells``; the sides need not be divisible."""
    for axis in (2, 3):
        side = latent.shape[axis]
        edges = np.linspace(0, side, min(cells, side) + 1).astype(int)
        parts = [latent.take(range(*edges[i : i + 2]), axis).mean(axis) for i in range(len(edges) - 1)]
        latent = np.stack(parts, axis)
    return latent
