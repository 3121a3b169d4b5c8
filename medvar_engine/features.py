"""Multi-scale features of images: columns of numbers for a classifier, a search, or a map of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvar_engine.arrays import FloatArray
from medvar_engine.backends.base import BackendInfo
from medvar_engine.generator import Generator
from medvar_engine.request import Request

GRID = 4  # cells a side to which a latent is averaged


def multiscale_features(generator: Generator, images: FloatArray) -> FloatArray:
    """Features ``(B, D)`` of images ``(B, H, W)``, or ``(B, H, W, 3)``, in [-1, 1]; `feature_names` names the columns.

    What the transformer's last blocks keep of an image under no condition (see `Generator.features`), and the latent
    after each scale, averaged to 4 × 4 cells: what the image looks like so far, coarse to fine.
    """
    generation = generator.encode(images, [Request()] * len(images))
    latents = [averaged(latent, GRID).reshape(len(images), -1) for latent in generation.latents]
    return np.concatenate([generator.features(generation), *latents], axis=1)


def feature_names(info: BackendInfo, columns: int) -> tuple[str, ...]:
    """Names of the ``columns`` of `multiscale_features`.

    ``attention.mean.0`` … and ``attention.std.0`` …: of keys and values, over the scales. ``scale3.latent.5.2.0``:
    of the latent after scale 3, channel 5, third row, first column.
    """
    cells = min(GRID, info.schedule.latent_side)
    places = [(c, y, x) for c in range(info.latent_channels) for y in range(cells) for x in range(cells)]
    latents = [f"scale{k}.latent.{c}.{y}.{x}" for k in range(len(info.schedule)) for c, y, x in places]
    kept = (columns - len(latents)) // 2
    return (*(f"attention.{kind}.{i}" for kind in ("mean", "std") for i in range(kept)), *latents)


def probe_columns(info: BackendInfo, names: Sequence[str]) -> list[int]:
    """The columns that a linear probe of few people is best given: attention, and the latent of the finest scale."""
    finest = f"scale{len(info.schedule) - 1}."
    return [i for i, name in enumerate(names) if name.startswith(("attention.", finest))]


def averaged(latent: FloatArray, cells: int) -> FloatArray:
    """``(B, C, H, W)`` averaged to at most ``cells`` × ``cells``, whatever the sides divide by."""
    for axis in (2, 3):
        side = latent.shape[axis]
        edges = np.linspace(0, side, min(cells, side) + 1).astype(int)
        parts = [latent.take(range(*edges[i : i + 2]), axis).mean(axis) for i in range(len(edges) - 1)]
        latent = np.stack(parts, axis)
    return latent
