"""Augmentation: plausible, its own for every image, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter
from torch import Tensor

from medvar_engine.evaluate.texture import octave_power
from medvar_engine.train import augment as module
from medvar_engine.train.augment import augment


def body(count: int, size: int = 48) -> Tensor:
    """A bright disc with a darker spot, on air."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    image = torch.where(x**2 + y**2 < 0.5, 0.4, -1.0)
    image = torch.where((x - 0.3) ** 2 + y**2 < 0.03, -0.3, image)
    return image.expand(count, 1, size, size).clone()


def test_the_same_seed_gives_the_same_batch() -> None:
    """A resumed run would see other images than one that never stopped."""
    batches = []
    for _ in range(2):
        torch.manual_seed(7)
        batches.append(augment(body(4)))
    assert torch.equal(*batches)
    assert not torch.equal(batches[0][0], batches[0][1])


def test_images_stay_plausible() -> None:
    """Training would learn images that no scanner makes: beyond the range, with bright air, or turned over."""
    torch.manual_seed(0)
    images = augment(body(64))
    assert images.min() >= -1
    assert images.max() <= 1
    assert (images[:, :, :3, :3] == -1).all()  # air in the corners stays air
    bright = (images > 0).float()
    assert (bright.mean((1, 2, 3)) / (body(1) > 0).float().mean() - 1).abs().max() < 0.6
    assert bright.mean(0)[0, 24, 24] > 0.9


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No warp."""
    for name in ("MAX_ROTATION", "MAX_SCALE", "MAX_SHIFT", "MAX_ELASTIC"):
        monkeypatch.setattr(module, name, 0.0)


@pytest.mark.usefixtures("still")
def test_ct_keeps_its_values() -> None:
    """Water would be anything from fat to bone, and CT would get the shading of MR coils."""
    torch.manual_seed(1)
    flat = torch.full((32, 1, 16, 16), 0.2)
    ct = augment(flat, torch.arange(32) % 2 == 0)
    assert (ct[0::2] - 0.2).abs().max() < 0.07
    assert (ct[1::2] - 0.2).abs().max() > 0.15
    assert ct[0::2].std((1, 2, 3)).max() < 1e-6
    assert ct[1::2].std((1, 2, 3)).min() > 1e-3


def test_an_image_does_not_depend_on_what_the_others_are() -> None:
    """The same MR slice would be another one beside a CT: pyramids would change with the order of the data."""
    results = []
    for others in (False, True):
        torch.manual_seed(2)
        results.append(augment(body(3), torch.tensor([False, others, others])))
    assert torch.equal(results[0][0], results[1][0])


def test_the_affine_warp_equals_that_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the grid's convention would turn, shear or shift by other amounts than are written here."""
    for name in ("MAX_ELASTIC", "MAX_GAMMA", "MAX_GAIN", "MAX_BIAS"):
        monkeypatch.setattr(module, name, 0.0)
    size = 48
    smooth = gaussian_filter(body(4, size).numpy(), (0, 0, 3, 3))  # all kinds of interpolation are alike
    images = torch.from_numpy(smooth)
    torch.manual_seed(3)
    ours = augment(images)
    torch.manual_seed(3)
    angle, scale_x, stretch, shift_x, shift_y = (torch.rand(4).double().numpy() * 2 - 1 for _ in range(5))
    for i in range(4):
        turn = angle[i] * module.MAX_ROTATION
        across = 1 + scale_x[i] * module.MAX_SCALE
        down = across * (1 + stretch[i] * module.MAX_SCALE / 3)
        # scipy counts pixels (row, column) from the corner; the grid, half sides (x, y) from the centre.
        matrix = np.array([[down * np.cos(turn), down * np.sin(turn)], [-across * np.sin(turn), across * np.cos(turn)]])
        centre = np.full(2, (size - 1) / 2)
        shift = np.array([shift_y[i], shift_x[i]]) * module.MAX_SHIFT * size / 2
        expected = affine_transform(
            images[i, 0].double().numpy() + 1, matrix, centre + shift - matrix @ centre, order=3, mode="grid-constant"
        )
        np.testing.assert_allclose(ours[i, 0].numpy() + 1, expected, atol=2e-2)


def test_fine_detail_survives_the_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models would learn images smoother than real slices, as with bilinear interpolation, which halves this power."""
    for name in ("MAX_GAMMA", "MAX_GAIN", "MAX_BIAS"):
        monkeypatch.setattr(module, name, 0.0)
    torch.manual_seed(4)
    radius = torch.fft.fftfreq(64)[:, None].hypot(torch.fft.fftfreq(64)).clamp_min(1 / 64)
    spectrum = torch.fft.fft2(torch.randn(16, 1, 64, 64)) / radius  # falls with the frequency, as that of a slice
    images = torch.fft.ifft2(spectrum).real
    images = 0.8 * images / images.abs().amax((1, 2, 3), keepdim=True)
    power = octave_power(augment(images)[:, 0, 8:-8, 8:-8].numpy()) / octave_power(images[:, 0, 8:-8, 8:-8].numpy())
    assert 0.8 < power[-1] < 1.2
    assert 0.8 < power[-2] < 1.2
