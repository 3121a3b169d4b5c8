"""Multi-scale features of images: columns of numbers for a classifier, a search, or a map of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medvar_engine.backends.base import BackendInfo
from medvar_engine.conditions import Condition
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request
from medvar_engine.types import FloatArray

GRID = 4  # cells a side to which a latent is averaged


def multiscale_features(generator: Generator, images: FloatArray) -> FloatArray:
    """Features ``(B, D)`` of images ``(B, H, W)``, or ``(B, H, W, 3)``, in [-1, 1]; `feature_names` names the columns.

    What the transformer's last blocks keep of an image under no condition (see `Generator.features`), and the latent
    after each scale: averaged to 4 × 4 cells, what the image looks like so far, coarse to fine; and each channel's
    standard deviation over all places, how much there is of it, wherever it lies.
    """
    generation = generator.encode(images, [Request()] * len(images))
    cells = [averaged(latent, GRID).reshape(len(images), -1) for latent in generation.latents]
    spreads = [latent.std(axis=(2, 3)) for latent in generation.latents]
    return np.concatenate([generator.features(generation), *cells, *spreads], axis=1)


def feature_names(info: BackendInfo, columns: int) -> tuple[str, ...]:
    """Names of the ``columns`` of `multiscale_features`.

    ``attention.mean.0`` … and ``attention.std.0`` …: of keys and values, over the scales. ``scale3.latent.5.2.0``:
    of the latent after scale 3, channel 5, third row, first column. ``scale3.spread.5``: that channel's spread.
    """
    cells, scales = min(GRID, info.schedule.latent_side), range(len(info.schedule))
    places = [(c, y, x) for c in range(info.latent_channels) for y in range(cells) for x in range(cells)]
    latents = [f"scale{k}.latent.{c}.{y}.{x}" for k in scales for c, y, x in places]
    spreads = [f"scale{k}.spread.{c}" for k in scales for c in range(info.latent_channels)]
    kept = (columns - len(latents) - len(spreads)) // 2
    return (*(f"attention.{kind}.{i}" for kind in ("mean", "std") for i in range(kept)), *latents, *spreads)


def likelihood_features(generator: Generator, images: FloatArray, conditions: Sequence[Condition]) -> FloatArray:
    """How much better than none each condition explains an image: bits a scale, ``(B, conditions · scales)``.

    The negative log-likelihood of a scale's tokens under no condition minus that under one: positive where it fits. The
    sum over the scales, largest for the condition that the image most probably shows, is a classifier by itself (as
    Li et al. make one of a diffusion model, arXiv 2303.16203). Costs one pass of the transformer a condition, so that
    images are read one by one; `likelihood_names` names the columns.
    """
    requests = (Request(), *(Request(condition) for condition in conditions))
    rows = []
    for image in images:
        generation = generator.encode(image[None], [Request()]).select([0] * len(requests))
        generation = replace(generation, requests=requests)
        bits = np.stack([scale.sum(axis=(1, 2)) for scale in generator.likelihood(generation)], axis=1)
        generator.cache.clear()  # no image comes twice, and the next one's prefixes need the room
        rows.append((bits[0] - bits[1:]).ravel())
    return np.stack(rows)


def likelihood_names(info: BackendInfo, conditions: Sequence[Condition]) -> tuple[str, ...]:
    """Names of the columns of `likelihood_features`: ``likelihood.MR brain axial.scale3``."""
    return tuple(f"likelihood.{condition}.scale{k}" for condition in conditions for k in range(len(info.schedule)))


def probe_columns(info: BackendInfo, names: Sequence[str]) -> list[int]:
    """The columns that a linear probe of few people is best given: all but the latents of coarser scales."""
    finest = f"scale{len(info.schedule) - 1}."
    return [i for i, name in enumerate(names) if ".latent." not in name or name.startswith(finest)]


def averaged(latent: FloatArray, cells: int) -> FloatArray:
    """``(B, C, H, W)`` averaged to at most ``cells`` × ``cells``, whatever the sides divide by."""
    for axis in (2, 3):
        side = latent.shape[axis]
        edges = np.linspace(0, side, min(cells, side) + 1).astype(int)
        parts = [latent.take(range(*edges[i : i + 2]), axis).mean(axis) for i in range(len(edges) - 1)]
        latent = np.stack(parts, axis)
    return latent
