from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from medvar_engine.models.fine_detail import BANDS, detail_bands, grain


def power_by_octave(image: torch.Tensor) -> np.ndarray:
    """Share of the power of ``(N, N)`` in each octave, coarse to fine, the corners with the finest."""
    power = torch.fft.fft2(image).abs().square().numpy()
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(len(image)), np.fft.fftfreq(len(image))))
    edges = [0, 1 / 16, 1 / 8, 1 / 4, 1]
    found = [power[(radius >= low) & (radius < high)].sum() for low, high in pairwise(edges)]
    return np.array(found) / power.sum()


def test_bands_hold_the_two_finest_octaves_of_an_image() -> None:
    """Strength of grain would be measured on outlines."""
    assert not detail_bands(torch.full((1, 1, 16, 16), 0.7)).abs().gt(1e-6).any()
    slope = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    assert not detail_bands(slope)[..., 3:-3, 3:-3].abs().gt(1e-6).any()
    torch.manual_seed(0)
    shares = [power_by_octave(band) for band in detail_bands(torch.randn(1, 1, 64, 64))[0]]
    assert all(share[3] > 0.85 for share in shares[:3])
    assert shares[3][2] > 0.25
    assert all(share[:2].sum() < 0.1 for share in shares)


def test_channels_are_independent() -> None:
    """Colours of one image would leak into each other."""
    image = torch.rand(2, 3, 12, 12)
    together = detail_bands(image).unflatten(1, (BANDS, 3))
    for channel in range(3):
        torch.testing.assert_close(together[:, :, channel], detail_bands(image[:, channel : channel + 1]))


def test_grain_is_the_same_everywhere() -> None:
    """The same tokens would give another image on another machine, or after an update of a library."""
    noise = grain(32)
    assert noise.shape == (BANDS, 32, 32)
    torch.testing.assert_close(noise.square().mean((1, 2)), torch.ones(BANDS))
    assert torch.equal(noise, grain(32))
    with torch.device("meta"):
        assert torch.equal(noise, grain(32))
    known = [[-1.2169, 0.5169], [-0.6053, -0.7748], [-1.0415, -0.0072], [0.3218, -1.6162]]
    torch.testing.assert_close(noise[:, 0, :2], torch.tensor(known), atol=1e-4, rtol=0)


def test_grain_is_periodic() -> None:
    """Moved about, it would show a seam."""
    noise = grain(32)
    within, across = noise.diff(dim=2).square().mean(), (noise[:, :, 0] - noise[:, :, -1]).square().mean()
    assert 0.7 < across / within < 1.4
