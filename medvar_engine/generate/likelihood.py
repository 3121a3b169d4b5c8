"""Likelihood of tokens, anomaly maps, inversion to noise, and features of images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.inversion import Inversion, posterior_noise
from medvar_engine.generate.prefix_runner import Prefixes
from medvar_engine.generate.sampling import entropy, log_softmax
from medvar_engine.generate.trace import Trace
from medvar_engine.request import Request
from medvar_engine.types import FloatArray

_TOGETHER = 16  # images with all keys and values in memory at once


def likelihood(prefixes: Prefixes, generation: Generation) -> tuple[FloatArray, ...]:
    """Negative log-likelihood of every token under its condition, in bits: ``(B, side, side)`` per scale."""
    return tuple(bits for bits, _ in _negative_log_likelihoods(prefixes, generation))


def anomaly_map(prefixes: Prefixes, generation: Generation) -> FloatArray:
    """Negative log-likelihood above its expectation, in bits, on the image grid: ``(B, H, W)``.

    The negative log-likelihood of a token minus the entropy of its distribution, which is its expectation under the
    model, summed over all scales at a pixel. About 0 for images that the model would draw, and high where an image
    contradicts its condition. Compare it with maps of normal images: real images never follow the model exactly.
    """
    size = prefixes.backend.info.image_size
    total = np.zeros((len(generation.requests), size, size), dtype=np.float32)
    for bits, expected in _negative_log_likelihoods(prefixes, generation):
        total += token_map_to_image(bits - expected, size)
    return total


def token_map_to_image(values: FloatArray, size: int) -> FloatArray:
    """Values of tokens ``(…, side, side)`` enlarged to pixels by nearest neighbour, ``(…, size, size)``."""
    side = values.shape[-1]
    nearest = (2 * np.arange(size) + 1) * side // (2 * size)
    return values[..., nearest[:, None], nearest[None, :]]


def features(prefixes: Prefixes, generation: Generation) -> FloatArray:
    """Features ``(B, D)`` of finished images, for classification, search or visualisation.

    Keys and values in the last quarter of the blocks of the transformer, without a condition, averaged over the tokens
    of a scale: the mean over the scales after the first, and the standard deviation over them. With a linear probe they
    predict the plane of slices of held-out patients better than pixels do (benchmarks/linear_probe.py).
    """
    if not generation.complete:
        raise MedvarError("Only finished images have features: run the generation to its end first.")
    parts = []
    for first in range(0, len(generation.requests), _TOGETHER):
        images = range(first, min(first + _TOGETHER, len(generation.requests)))
        *_, whole = prefixes.replay([Request()] * len(images), generation.pyramid.select(images))
        kept = prefixes.summary(whole)[:, 1:]
        kept = kept[:, :, -max(1, kept.shape[2] // 4) :].reshape(*kept.shape[:2], -1)
        parts.append(np.concatenate([kept.mean(axis=1), kept.std(axis=1)], axis=1))
    return np.concatenate(parts)


def invert(prefixes: Prefixes, trace: Trace, request: Request) -> Inversion:
    """Noise under which ``request`` gives the tokens of a finished image; ``request.seed`` selects one of many."""
    if not trace.pyramid.complete:
        raise MedvarError("Only a finished image can be inverted: run the generation to its end first.")
    if request.sampling.temperature == 0:
        raise MedvarError(
            "At temperature 0 no noise is drawn, so no noise can explain an image. Use a higher temperature to invert."
        )
    noise = []
    for past in prefixes.replay([request], trace.pyramid):
        if not past.complete:
            tokens = trace.pyramid.tokens(past.depth)[0]
            (logits,) = prefixes.guided_logits(past)
            sampling = request.sampling.at(past.depth, len(trace.pyramid.schedule))
            noise.append(posterior_noise(logits, tokens, sampling, request.seed, past.depth))
    return Inversion(trace, request, tuple(noise))


def _negative_log_likelihoods(prefixes: Prefixes, generation: Generation) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Negative log-likelihood of every token and its expectation, in bits: ``(B, side, side)`` each, per scale."""
    for past in prefixes.replay(generation.requests, generation.pyramid):
        if past.depth == generation.depth:
            return
        maps = generation.pyramid.maps[past.depth]
        logits = prefixes.logits(past)
        pairs = zip(logits, maps.reshape(len(maps), -1, 1), strict=True)
        log_p = np.stack([np.take_along_axis(log_softmax(own), tokens, -1) for own, tokens in pairs])
        expected = np.stack([entropy(own) for own in logits])
        yield -log_p.reshape(maps.shape) / np.float32(np.log(2)), expected.reshape(maps.shape)
