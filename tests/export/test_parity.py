"""A bundle computes what torch computes, in any batch."""

from __future__ import annotations

import platform
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.request import Sampling
from medvar_engine.types import FloatArray
from medvar_export.accumulate_graph import accumulate_graph
from medvar_export.parity import DIFFERENCES, HeldOut, measure_parity

BAR = 1e-4  # largest difference that float32 graphs may show
CONDITIONS = (Condition(), Condition("CT", "chest", "axial"), Condition(region="brain"))
SAMPLINGS = (Sampling(), Sampling(guidance=0, top_k=5), Sampling(guidance=4, top_p=1, temperature=1.3))


def finished(backend: Backend, requests: list[Request]) -> Generation:
    generator = Generator(backend)
    return generator.finish(generator.start(requests))


def test_parity_is_recorded(tiny_bundle: Path) -> None:
    """Nobody could tell from a bundle whether its export went well."""
    parity = read_bundle(tiny_bundle).parity
    assert set(parity) == {*DIFFERENCES, "tokens_agreeing", "tokens_drawn_alike"}
    assert parity["tokens_agreeing"] == parity["tokens_drawn_alike"] == 1
    assert max(parity[name] for name in DIFFERENCES) <= BAR


def test_parity_refuses_nan(tiny_backend: TorchBackend) -> None:
    """An export that gives NaN would pass for a perfect one."""

    class Broken(TorchBackend):
        def __init__(self) -> None:
            self.__dict__ |= tiny_backend.__dict__

        def step(self, state: PrefixState, maps: FloatArray | None) -> tuple[FloatArray, PrefixState]:
            logits, longer = super().step(state, maps)
            return (logits if state.depth else logits * np.float32(np.nan)), longer

    assert np.isnan(measure_parity(tiny_backend, Broken())["logits"])


def test_parity_on_real_slices_is_a_loss(tiny_backend: TorchBackend, tiny_onnx: OnnxBackend) -> None:
    """Whether int8 costs quality could not be read off a bundle: differences of logits do not say it."""
    images = np.random.default_rng(2).uniform(-1, 1, (3, 1, 16, 16)).astype(np.float32)
    labels = np.array([[0, 0, 0], [1, 1, 1], tiny_backend.info.labels.unconditional])
    parity = measure_parity(tiny_backend, tiny_onnx, HeldOut(images, labels))
    generator = Generator(tiny_backend)
    told = generator.likelihood(
        generator.encode(
            images[:, 0],
            [
                Request(c)
                for c in (Condition("CT", "abdomen", "axial"), Condition("MR", "brain", "coronal"), Condition())
            ],
        )
    )
    bits = np.concatenate([scale.ravel() for scale in told]).mean()
    assert parity["held_out_loss"] == pytest.approx(bits * np.log(2), rel=1e-4)
    assert abs(parity["held_out_loss_added"]) < BAR


def test_both_backends_draw_the_same_tokens(tiny_backend: TorchBackend, tiny_onnx: OnnxBackend) -> None:
    """An image tried out in torch would be another one in the bundle that is shipped."""
    requests = [Request(*what) for what in product(CONDITIONS, (0, 1, 2**64 - 1), SAMPLINGS)]
    torch_made, onnx_made = finished(tiny_backend, requests), finished(tiny_onnx, requests)
    assert torch_made.pyramid == onnx_made.pyramid
    # Without guidance a random network hardly heeds its condition, so that one of 9 pairs may be alike by chance.
    assert len({onnx_made.pyramid.digest(i) for i in range(len(requests))}) >= len(requests) - 1
    for ours, reference in zip(onnx_made.entropy, torch_made.entropy, strict=True):
        np.testing.assert_allclose(ours, reference, atol=BAR)
    images = [
        backend.decode(made.latents[-1]) for backend, made in ((tiny_backend, torch_made), (tiny_onnx, onnx_made))
    ]
    np.testing.assert_allclose(*images, atol=BAR)


def test_both_backends_encode_the_same_tokens(tiny_backend: TorchBackend, tiny_onnx: OnnxBackend) -> None:
    """A real image opened for editing would be another one in napari than in training."""
    images = np.random.default_rng(1).uniform(-1, 1, (3, 1, 16, 16)).astype(np.float32)
    for ours, reference in zip(tiny_onnx.encode(images), tiny_backend.encode(images), strict=True):
        np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize("guidance", [0, 3])
def test_a_seed_gives_the_same_image_alone_in_a_batch_and_resampled(tiny_onnx: OnnxBackend, guidance: float) -> None:
    """One of many candidates could not be made again alone, or would change when the memory for prefixes is full."""
    sampling = Sampling(guidance=guidance)
    requests = [Request(Condition("MR", "brain"), seed, sampling) for seed in range(4)]
    requests.append(Request(Condition("CT"), 9, Sampling(guidance=1)))
    generator = Generator(tiny_onnx)
    batch = generator.finish(generator.start(requests))
    images = generator.image(batch)
    for i, request in enumerate(requests):
        alone = finished(tiny_onnx, [request])
        assert alone.pyramid == batch.pyramid.select([i])
        np.testing.assert_allclose(generator.image(alone)[0], images[i], atol=1e-6)
        for k in range(batch.depth):
            if k == 2:
                generator.cache.clear()
            again = generator.finish(generator.resample(batch.trace(i), k))
            assert again.pyramid == alone.pyramid
            np.testing.assert_allclose(generator.image(again)[0], images[i], atol=1e-6)


@pytest.mark.parametrize("rows", [[0], [4], [1, 3], [4, 3, 2, 1], [0] * 7])
def test_a_row_does_not_depend_on_its_batch(tiny_onnx: OnnxBackend, rows: list[int]) -> None:
    """Somebody's seed would now and then give another image in a batch: where two tokens are nearly tied."""
    info, rng = tiny_onnx.info, np.random.default_rng(0)
    labels = np.stack([rng.integers(0, size + 1, 5) for size in info.labels.sizes], axis=1)
    maps = [rng.integers(0, info.vocabulary, (5, count)) for count in info.schedule.token_counts]

    def run(chosen: list[int]) -> list[FloatArray]:
        state, latent, features, seen = tiny_onnx.start(labels[chosen]), None, None, []
        for k, tokens in enumerate(maps):
            logits, state = tiny_onnx.step(state, features)
            latent, features = tiny_onnx.accumulate(latent, tokens[chosen], k)
            seen += [logits, latent, tiny_onnx.decode(latent)]
        return seen

    for part, whole in zip(run(rows), run(list(range(5))), strict=True):
        if platform.machine() in ("x86_64", "AMD64"):  # elsewhere the runtime may take another path for a single row
            np.testing.assert_array_equal(part, whole[rows])
        np.testing.assert_allclose(part, whole[rows], rtol=0, atol=2e-6)


def test_accumulate_is_the_quantizer(tiny_models: tuple[Tokenizer, Transformer], tiny_onnx: OnnxBackend) -> None:
    """The one graph that is spelt out by hand would drift from the network that was trained."""
    quantizer = tiny_models[0].quantizer
    generator = torch.Generator().manual_seed(0)
    tokens = tuple(torch.randint(24, (3, n), generator=generator) for n in quantizer.schedule.token_counts)
    features = quantizer.scale_features(tokens).split(quantizer.schedule.token_counts[1:], dim=1)
    latent = None
    for k, token_map in enumerate(tokens):
        latent, following = tiny_onnx.accumulate(latent, token_map.numpy(), k)
        with torch.no_grad():
            np.testing.assert_allclose(latent, quantizer.decode(tokens[: k + 1]), atol=1e-5)
        if k + 1 == len(tokens):
            assert following is None
        else:
            np.testing.assert_allclose(following, features[k].detach(), atol=1e-5)


def test_accumulate_knows_every_scale_by_its_phi(tiny_models: tuple[Tokenizer, Transformer]) -> None:
    """Two scales that share a convolution, or not, would be mixed up: coarse previews look right, fine ones do not."""
    quantizer = tiny_models[0].quantizer
    for k in range(len(quantizer.schedule)):
        graph = accumulate_graph(quantizer, k).graph
        kernel = next(tensor for tensor in graph.initializer if tensor.name == "kernel")
        expected = quantizer.phi(k).weight.detach().clone() * quantizer.phi(k).ratio
        for channel in range(quantizer.channels):
            expected[channel, channel, 1, 1] += 1 - quantizer.phi(k).ratio
        np.testing.assert_allclose(np.frombuffer(kernel.raw_data, np.float32), expected.flatten(), atol=1e-7)
