"""Reconstruction: how well tokens represent real slices, and the loss by drawing the finest scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.encoded_slices import encoded_slices
from medvar_engine.evaluate.metrics.bootstrap import estimate_mean
from medvar_engine.evaluate.metrics.dice import dice, overlap_counts
from medvar_engine.evaluate.metrics.metric_table import MetricValue, shown
from medvar_engine.generate.finished_pairs import finished_pairs
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Sampling
from medvar_engine.train.batches import spread
from medvar_engine.train.stages.image_similarity import psnr
from medvar_engine.train.stages.mask_losses import SMALLEST
from medvar_engine.types import FloatArray, IntArray

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Mean peak signal-to-noise ratios in dB of slices of held-out patients."""

    slices: int
    full: MetricValue  # all scales, decoded
    by_scale: tuple[float, ...]  # of the previews after each scale
    finest_drawn: MetricValue  # loss when the finest scale is drawn and all others are true
    mask_dice: MetricValue | None = None  # Dice of structures above `SMALLEST` pixels, for a model that makes masks


def measure_reconstruction(
    generator: Generator, held_out: SliceDataset, sampling: Sampling, count: int = 64
) -> Reconstruction:
    """Measure ``count`` evenly spaced slices of ``held_out``; intervals are over patients.

    The finest scale is drawn with ``sampling``, as in generated images.
    """
    info = generator.backend.info
    last, structures = len(info.schedule) - 1, len(info.structures)
    chosen = spread(len(held_out), count)
    full, drawn, previews, overlap = [], [], [], []
    for first in range(0, len(chosen), _BATCH):
        part = chosen[first : first + _BATCH]
        images = held_out.batch(part)[:, 0]
        encoded = encoded_slices(generator, held_out, part, sampling)
        previews.append([_psnr(generator.preview(encoded, k), images) for k in range(last + 1)])
        decoded, masks = finished_pairs(generator, encoded)
        full.append(_psnr(decoded, images))
        if structures:
            overlap.append(
                overlap_counts(np.stack([one for one in masks if one is not None]), held_out.masks(part), structures)
            )
        for trace, image in zip(encoded.traces, images, strict=True):
            again = generator.finish(generator.resample(trace, last))
            drawn.append(_psnr(generator.image(again), image[None]))
    patients = [held_out.rows[int(i)].patient for i in chosen]
    whole, other = np.concatenate(full), np.concatenate(drawn)
    return Reconstruction(
        slices=len(chosen),
        full=shown(estimate_mean(whole, patients), "held-out patients"),
        by_scale=tuple(map(float, np.concatenate(previews, axis=1).mean(1))),
        finest_drawn=shown(estimate_mean(whole - other, patients), "held-out patients"),
        mask_dice=_mask_dice(np.concatenate(overlap), patients) if structures else None,
    )


def _mask_dice(counts: IntArray, people: Sequence[str]) -> MetricValue:
    """Mean Dice of every structure of more than `SMALLEST` pixels in every slice, of `overlap_counts`."""
    slices, structures = np.nonzero(counts[..., 2] > SMALLEST)
    if not len(slices):
        return MetricValue(None, missing=f"no held-out slice shows a structure of more than {SMALLEST} pixels")
    values = dice(counts[slices, structures])
    return shown(estimate_mean(values, [people[int(i)] for i in slices]), "held-out patients")


def _psnr(made: FloatArray, real: FloatArray) -> FloatArray:
    """PSNR of each image ``(B, H, W)`` in [-1, 1], in dB; three channels are averaged."""
    grey = made.mean(-1) if made.ndim == 4 else made
    found: FloatArray = psnr(torch.from_numpy(grey)[:, None], torch.from_numpy(real)[:, None]).numpy()
    return found
