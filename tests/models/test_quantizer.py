"""Multi-scale residual quantisation."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from medvar_engine.models.presets import VAR_SCHEDULE
from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.train.stages.codebook_learning import CodebookFollower, CodeUse

SCHEDULE = ScaleSchedule((1, 2, 3, 4, 6))


@pytest.fixture
def quantizer() -> MultiScaleQuantizer:
    """64 codes of 8 channels."""
    return MultiScaleQuantizer(SCHEDULE, 64, 8)


def latents(count: int) -> Tensor:
    """Smooth random latents ``(count, 8, 6, 6)``."""
    coarse = torch.randn(count, 8, 2, 2)
    return torch.nn.functional.interpolate(coarse, size=6, mode="bilinear") + 0.2 * torch.randn(count, 8, 6, 6)


def trained(quantizer: MultiScaleQuantizer, data: Tensor, steps: int) -> list[float]:
    """Fits codebook and convolutions to ``data`` and gives the loss of every step."""
    optimizer, losses = torch.optim.Adam(quantizer.phis.parameters(), lr=0.01), []
    follower = CodebookFollower(quantizer)
    for step in range(steps):
        quantized = quantizer(data)
        optimizer.zero_grad()
        quantized.loss.backward()
        optimizer.step()
        follower.follow(quantizer, CodeUse.of(quantizer, quantized), decay=0.8)
        if step == 0:
            follower.restart_all(quantizer, quantized)
        losses.append(float(quantized.loss.detach()))
    return losses


def test_training_step_and_encoding_agree(quantizer: MultiScaleQuantizer) -> None:
    """The transformer is trained on `encode`'s tokens: they have to be those the decoder was trained on."""
    data = latents(3)
    quantized = quantizer(data)
    assert [t.shape for t in quantized.tokens] == [(3, side * side) for side in SCHEDULE]
    for ours, encoded in zip(quantized.tokens, quantizer.encode(data), strict=True):
        assert torch.equal(ours, encoded)
    torch.testing.assert_close(quantized.latent, quantizer.decode(quantized.tokens), rtol=0, atol=1e-5)


def test_an_image_is_coded_alike_in_any_batch(quantizer: MultiScaleQuantizer) -> None:
    """A scan encoded alone and in a batch has to give the same tokens, or an edit would not start from the image."""
    data = latents(4)
    together, alone = quantizer.encode(data), quantizer.encode(data[2:3])
    assert all(torch.equal(batch[2:3], single) for batch, single in zip(together, alone, strict=True))


def test_codes_are_recovered_from_their_image(quantizer: MultiScaleQuantizer) -> None:
    """A latent that is one code everywhere has to be coded as that code at the first scale, with nothing left over."""
    with torch.no_grad():
        for phi in quantizer.phis:
            torch.nn.init.dirac_(phi.get_parameter("weight"))  # identity
            torch.nn.init.zeros_(phi.get_parameter("bias"))
        quantizer.codebook.weight[0] = 0  # "nothing to add"
    wanted = torch.tensor([5, 40])
    tokens = quantizer.encode(quantizer.codebook(wanted)[:, :, None, None].expand(-1, -1, 6, 6))
    assert tokens[0].flatten().tolist() == [5, 40]
    assert all(not token_map.any() for token_map in tokens[1:])


def test_every_scale_brings_the_latent_nearer(quantizer: MultiScaleQuantizer) -> None:
    """Previews of finer scales have to be better images; a scale that spoils them would be waiting for nothing."""
    data = latents(64)
    losses = trained(quantizer, data, 40)
    assert losses[-1] < 0.8 * losses[0]
    tokens = quantizer.encode(data)
    with torch.no_grad():
        errors = [float((quantizer.decode(tokens[:k]) - data).square().mean()) for k in range(1, len(SCHEDULE) + 1)]
    assert all(later < earlier for earlier, later in pairwise(errors)), errors
    assert errors[-1] < 0.1 * float(data.square().mean())


def test_features_are_the_pooled_prefixes(quantizer: MultiScaleQuantizer) -> None:
    """Training's input of scale k has to be what generation gives it after k scales, or drawing would go astray."""
    tokens = quantizer.encode(latents(2))
    features = quantizer.scale_features(tokens)
    assert features.shape == (2, SCHEDULE.tokens - SCHEDULE.token_counts[0], 8)
    first = SCHEDULE.offsets[1]
    for k in range(1, len(SCHEDULE)):
        ours = features[:, SCHEDULE.offsets[k] - first : SCHEDULE.offsets[k + 1] - first]
        torch.testing.assert_close(ours, quantizer.pool(quantizer.decode(tokens[:k]), k), rtol=0, atol=1e-5)


def test_gradients_reach_encoder_and_convolutions(quantizer: MultiScaleQuantizer) -> None:
    """Choosing a code has no gradient: without the detour the encoder would never learn from the image."""
    data = latents(2).requires_grad_()
    quantized = quantizer(data)
    (gradient,) = torch.autograd.grad(quantized.latent.sum(), data)
    assert torch.equal(gradient, torch.ones_like(data))
    quantized.loss.backward()
    assert data.grad is not None
    assert float(data.grad.abs().sum()) > 0
    gradients = [parameter.grad for parameter in quantizer.phis.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_depths_show_the_decoder_a_prefix(quantizer: MultiScaleQuantizer) -> None:
    """Images trained at depth d have to be the prefix of d scales, or coarse previews would not become images."""
    data = latents(4)
    depths = torch.tensor([1, 3, len(SCHEDULE), len(SCHEDULE) + 1])
    quantized, whole = quantizer(data, depths), quantizer(data)
    for i, depth in enumerate(depths[:3].tolist()):
        prefix = tuple(token_map[i : i + 1] for token_map in quantized.tokens[:depth])
        torch.testing.assert_close(quantized.latent[i : i + 1], quantizer.decode(prefix), rtol=0, atol=1e-5)
    torch.testing.assert_close(quantized.latent[3], data[3])  # beyond the last scale: not quantised
    torch.testing.assert_close(quantized.loss, whole.loss)  # the loss covers all scales all the same


def test_the_gradient_of_a_prefix_passes_its_resolution(quantizer: MultiScaleQuantizer) -> None:
    """The encoder would be told to change detail that the prefix cannot hold."""
    data = latents(4).requires_grad_()
    depths = torch.tensor([1, 3, len(SCHEDULE), len(SCHEDULE) + 1])
    weight = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    quantized = quantizer(data, depths)
    (gradient,) = torch.autograd.grad((quantized.latent * weight).sum(), data)
    torch.testing.assert_close(gradient[0], weight[0].mean((1, 2), keepdim=True).expand_as(gradient[0]))  # one token
    torch.testing.assert_close(gradient[2:], weight[2:])
    blocks = gradient[1].unflatten(1, (SCHEDULE[2], -1)).unflatten(3, (SCHEDULE[2], -1))
    assert float(blocks.var((2, 4)).max()) < 1e-10  # the same within each token


@pytest.mark.parametrize(
    ("sides", "phis", "expected"),
    [
        (VAR_SCHEDULE, 4, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),  # scales 2 and 7 lie midway between two convolutions
        ((1, 2, 3, 4, 6, 9, 16), 4, [0, 0, 1, 2, 2, 3, 3]),
        ((1, 2, 3, 4, 5, 6), 5, [0, 0, 1, 2, 3, 4]),
        (VAR_SCHEDULE, 1, [0] * 10),
        (VAR_SCHEDULE, 10, list(range(10))),
        ((4,), 4, [0]),
    ],
)
def test_scales_use_the_same_convolutions_as_var(sides: tuple[int, ...], phis: int, expected: list[int]) -> None:
    """Published weights would decode wrongly if one scale took its neighbour's convolution; ties are decided alike."""
    quantizer = MultiScaleQuantizer(ScaleSchedule(sides), 4, 2, phis=phis)
    modules = list(quantizer.phis)
    assert [modules.index(quantizer.phi(k)) for k in range(len(sides))] == expected
    with torch.device("meta"):  # a default device must not change the choice
        assert [modules.index(quantizer.phi(k)) for k in range(len(sides))] == expected
