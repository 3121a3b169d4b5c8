from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from medvar_engine.encoders.simclr import SimCLRConfig, SimCLRNetwork, save_simclr
from medvar_engine.errors import MedvarError
from medvar_engine.models.feature_network import load_feature_network
from medvar_engine.models.weight_files import write_tensors


def vgg(channels: int) -> nn.Sequential:
    """Two blocks in torchvision's order: convolution, ReLU, convolution, ReLU, pooling, convolution, ReLU."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()),
    )


def write(path: Path, network: nn.Sequential) -> Path:
    tensors = {f"features.{name}": tensor for name, tensor in network.state_dict().items()}
    write_tensors(path, tensors | {"classifier.0.weight": torch.zeros(2, 2)})
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_equals_the_file(tmp_path: Path, channels: int) -> None:
    """A pooling in the wrong place would still train, on features that mean nothing."""
    plain = vgg(channels)
    network = load_feature_network(write(tmp_path / "vgg.safetensors", plain))
    image = torch.rand(2, 1, 12, 12) * 2 - 1
    x = (image + 1) / 2
    if channels == 3:
        mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x = (x - mean) / deviation
    first, second = network(image)
    torch.testing.assert_close(first, plain[:4](x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second, plain(x), rtol=1e-5, atol=1e-5)


def test_a_simclr_encoder_gives_its_stages(tmp_path: Path) -> None:
    """The encoder that everybody has, trained by `medvar gate`, could not be used."""
    torch.manual_seed(0)
    encoder = SimCLRNetwork(SimCLRConfig(16, (8, 16), 4))
    save_simclr(tmp_path / "simclr.safetensors", encoder, {})
    network = load_feature_network(tmp_path / "simclr.safetensors")
    image = torch.rand(2, 1, 32, 32) * 2 - 1
    first, second = network(image)
    assert first.shape == (2, 8, 16, 16)
    torch.testing.assert_close(second, encoder.stages(image - image.amin((1, 2, 3), keepdim=True)))
    assert network.distance(image, image).tolist() == [0, 0]
    assert (network.distance(image, image.flip(2)) > 0).all()


def test_distance_is_zero_to_itself_and_grows(tmp_path: Path) -> None:
    """A loss with its minimum elsewhere pulls images away from what they show."""
    network = load_feature_network(write(tmp_path / "vgg.safetensors", vgg(3)))
    image = torch.rand(3, 1, 16, 16) * 2 - 1
    noise = torch.randn_like(image)
    near, far = ((image + s * noise).clamp(-1, 1) for s in (0.05, 0.5))
    assert network.distance(image, image).tolist() == [0, 0, 0]
    assert (network.distance(near, image) < network.distance(far, image)).all()
    far.requires_grad_(True)
    network.distance(far, image).sum().backward()
    assert torch.isfinite(far.grad).all()  # type: ignore[arg-type]
    assert far.grad.abs().sum() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(3)}, "has no tensors"),
        ({"features.0.weight": torch.zeros(4, 3, 3, 3)}, "features.0.bias"),
        ({"features.0.weight": torch.zeros(4, 2, 3, 3), "features.0.bias": torch.zeros(4)}, "2 channels"),
        ({"stages.1.weight": torch.zeros(8, 1, 3, 3)}, "stages.2.weight"),
        ({"features.0.weight": torch.zeros(4, 3, 7, 7), "features.0.bias": torch.zeros(4)}, "7, 7"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    """The wrong file of a download page would be a traceback."""
    write_tensors(tmp_path / "file.safetensors", tensors)
    with pytest.raises(MedvarError, match=message):
        load_feature_network(tmp_path / "file.safetensors")
