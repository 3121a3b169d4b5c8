"""Compares a bundle with the torch model that it was exported from, through the `Backend` interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from medvar_engine.backends.base import Backend
from medvar_engine.generate.sampling import draw, log_softmax
from medvar_engine.request import Sampling
from medvar_engine.types import FloatArray, IntArray

IMAGES = 2
FLOAT32_BAR = 1e-3  # largest accepted difference of logits, latent and image of a float32 export
DIFFERENCES = ("logits", "latent", "image")  # values that should be 0; others are shares and losses


class HeldOut(NamedTuple):
    """Real images of held-out patients, with their labels."""

    images: FloatArray  # (B, image channels, H, W) in [-1, 1]
    labels: IntArray  # (B, F)


class _Scale(NamedTuple):
    """The results of both backends for one scale, with the same tokens before it."""

    logits: tuple[FloatArray, FloatArray]  # (B, L_k, V)
    latents: tuple[FloatArray, FloatArray]  # (B, C, side, side)


def measure_parity(reference: Backend, exported: Backend, held_out: HeldOut | None = None) -> dict[str, float]:
    """Compare both backends in one pass through all scales with the same tokens.

    ``logits`` (also those of a guide), ``latent`` and ``image`` are the largest absolute differences.
    ``tokens_agreeing`` is the share of equal tokens of both encoders for an image of noise; it is below 1 if two codes
    are equally near. ``masks_agreeing`` is the share of pixels of a pair with the same structure.
    ``tokens_drawn_alike`` is the share of equal tokens drawn with the same noise. ``held_out_loss`` is the loss on
    ``held_out`` in nats per token, and ``held_out_loss_added`` the difference of ``exported`` from ``reference``.
    """
    info, rng = reference.info, np.random.default_rng(0)
    image = rng.uniform(-1, 1, (IMAGES, info.image_channels, info.image_size, info.image_size)).astype(np.float32)
    if info.structures:  # squares of structures, because in noise every pixel would be a border
        squares = rng.integers(0, len(info.structures) + 1, (IMAGES, 1, 8, 8)).astype(np.float32)
        places = np.arange(info.image_size) * 8 // info.image_size
        image = np.concatenate([image, squares[..., places[:, None], places]], axis=1)
    maps = reference.encode(image)
    agreeing = np.concatenate([(a == b).ravel() for a, b in zip(maps, exported.encode(image), strict=True)])
    labels = np.array([[size // 2 for size in info.labels.sizes], info.labels.unconditional], dtype=np.int64)
    worst, alike = dict.fromkeys(DIFFERENCES, 0.0), []
    for k, scale in enumerate(_scales(reference, exported, labels, maps)):
        worst["logits"] = _larger(worst["logits"], scale.logits)
        worst["latent"] = _larger(worst["latent"], scale.latents)
        drawn = [[draw(own, Sampling(), seed, k) for seed, own in enumerate(logits)] for logits in scale.logits]
        alike.append(np.array(drawn[0]) == np.array(drawn[1]))
        latent = scale.latents[0]
    for scale in _scales(reference, exported, labels, maps, guide=True) if info.has_guide else ():
        worst["logits"] = _larger(worst["logits"], scale.logits)
    images = [backend.decode(latent) for backend in (reference, exported)]
    pixels = [one[:, : info.image_channels] for one in images]
    worst["image"] = float(np.abs(np.subtract(*pixels)).max())
    masks = [one[:, info.image_channels :] for one in images]
    of_masks = {"masks_agreeing": float(np.equal(*masks).mean())} if info.structures else {}
    shares = {
        "tokens_agreeing": float(agreeing.mean()),
        "tokens_drawn_alike": float(np.concatenate(alike, axis=1).mean()),
    }
    return {**worst, **shares, **of_masks, **(_losses(reference, exported, held_out) if held_out else {})}


def _larger(before: float, results: tuple[FloatArray, FloatArray]) -> float:
    """``before`` or the largest difference of two results. With numpy's maximum: that of Python can ignore NaN."""
    return float(np.maximum(before, np.abs(np.subtract(*results)).max()))


def _losses(reference: Backend, exported: Backend, held_out: HeldOut) -> dict[str, float]:
    maps = reference.encode(held_out.images)
    nats: tuple[list[FloatArray], list[FloatArray]] = [], []
    for tokens, scale in zip(maps, _scales(reference, exported, held_out.labels, maps), strict=True):
        for kept, logits in zip(nats, scale.logits, strict=True):
            kept.append(-np.take_along_axis(log_softmax(logits), tokens[:, :, None], axis=-1).ravel())
    losses = [float(np.concatenate(kept).mean(dtype=np.float64)) for kept in nats]
    return {"held_out_loss": losses[0], "held_out_loss_added": losses[1] - losses[0]}


def _scales(
    reference: Backend, exported: Backend, labels: IntArray, maps: tuple[IntArray, ...], *, guide: bool = False
) -> Iterator[_Scale]:
    """Run all scales under ``labels`` with the tokens of ``maps``."""
    backends = reference, exported
    states = [backend.start(labels, guide=guide) for backend in backends]
    latents: list[FloatArray | None] = [None, None]
    scale_features: list[FloatArray | None] = [None, None]
    for k, tokens in enumerate(maps):
        logits = []
        for i, backend in enumerate(backends):
            out, states[i] = backend.step(states[i], scale_features[i])
            latents[i], scale_features[i] = backend.accumulate(latents[i], tokens, k)
            logits.append(out)
        yield _Scale((logits[0], logits[1]), (latents[0], latents[1]))  # type: ignore[arg-type]
