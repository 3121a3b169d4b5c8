"""Networks whose features measure the perceptual distance of images: the convolutions of a VGG or a SimCLR encoder.

They are read from safetensors files, which contain no code. The architecture follows from the names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.errors import MedvarError
from medvar_engine.models.halving_stages import from_darkest, halving_stages
from medvar_engine.models.weight_files import read_tensors

_NAME = re.compile(r"features\.(\d+)\.weight")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's statistics, for values in [0, 1]


class FeatureNetwork(nn.Module):
    """A network that maps images to features at several resolutions."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images ``(B, 1, H, W)`` in [-1, 1] → features ``(B, C_i, H_i, W_i)`` of each resolution."""
        raise NotImplementedError

    def distance(self, made: Tensor, real: Tensor) -> Tensor:
        """The perceptual distance ``(B,)`` of image pairs, each ``(B, 1, H, W)``; 0 for equal images.

        It is the mean squared difference of features that are normalised at every position, summed over resolutions:
        LPIPS (arXiv 1801.03924) without its learned weights.
        """
        total = made.new_zeros(len(made))
        for ours, its in zip(self(made), self(real), strict=True):
            total = total + (_unit(ours) - _unit(its)).square().sum(1).mean((1, 2))
        return total


class ConvolutionStack(FeatureNetwork):
    """3×3 convolutions and ReLUs in blocks, with 2×2 max-pooling between the blocks (VGG, arXiv 1409.1556)."""

    def __init__(self, blocks: tuple[tuple[nn.Conv2d, ...], ...]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.channels = blocks[0][0].in_channels

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images ``(B, 1, H, W)`` in [-1, 1] → the features of each block, ``(B, C_i, H/2^i, W/2^i)``."""
        x = (image + 1) / 2
        if self.channels == 3:
            mean, deviation = (x.new_tensor(v)[None, :, None, None] for v in (_MEAN, _DEVIATION))
            x = (x - mean) / deviation
        features = []
        for i, block in enumerate(self.blocks):
            if i:
                x = F.max_pool2d(x, 2)
            for convolution in block:  # type: ignore[attr-defined]  # mypy sees a plain module
                x = F.relu(convolution(x))
            features.append(x)
        return features


class EncoderStages(FeatureNetwork):
    """The stages of a SimCLR encoder of slices (`medvar_engine.encoders.simclr`), at the images' own resolution."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.stages = halving_stages(channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images ``(B, 1, H, W)`` in [-1, 1] → the features of each stage, ``(B, C_i, H/2^(i+1), W/2^(i+1))``."""
        x = from_darkest(image)
        features = []
        for layer in self.stages:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                features.append(x)
        return features


def _unit(features: Tensor) -> Tensor:
    """``(B, C, H, W)`` normalised to length 1 at every position."""
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()


def load_feature_network(path: Path) -> FeatureNetwork:
    """Read a SimCLR encoder that medvar has trained, or the convolutions of a VGG 11 to 19 (without batch norm).

    The tensors of a VGG are ``features.N.weight`` and ``.bias``, as in torchvision; others are ignored. Raises
    `MedvarError` for a file that contains neither.
    """
    tensors, _ = read_tensors(path)
    try:
        network = _encoder_stages(tensors) if "stages.1.weight" in tensors else _convolution_stack(tensors)
        return network.eval().requires_grad_(False)
    except (ValueError, KeyError, RuntimeError) as error:
        raise MedvarError(
            f"{path} is not a feature network: {error}. Expected: a SimCLR encoder trained by medvar, or the 3×3 "
            "convolutions of a VGG with the names of torchvision (features.0.weight, features.0.bias, …), saved as "
            "safetensors."
        ) from error


def _encoder_stages(tensors: Mapping[str, Tensor]) -> EncoderStages:
    stages = {name: tensor for name, tensor in tensors.items() if name.startswith("stages.")}
    convolutions = sorted(int(name.split(".")[1]) for name, tensor in stages.items() if tensor.ndim == 4)
    network = EncoderStages([len(stages[f"stages.{i}.weight"]) for i in convolutions])
    network.load_state_dict(stages)
    return network


def _convolution_stack(tensors: Mapping[str, Tensor]) -> ConvolutionStack:
    places = sorted(int(found[1]) for name in tensors if (found := _NAME.fullmatch(name)))
    if not places:
        raise ValueError("it has no tensors features.N.weight")
    return ConvolutionStack(_blocks(tensors, places))


def _blocks(tensors: Mapping[str, Tensor], places: list[int]) -> tuple[tuple[nn.Conv2d, ...], ...]:
    """Blocks of convolutions, from the layer indices: a gap of two is convolution and ReLU, of three also a pooling."""
    blocks: list[list[nn.Conv2d]] = [[]]
    channels = tensors[f"features.{places[0]}.weight"].shape[1]
    if channels not in (1, 3):
        raise ValueError(f"its first convolution takes {channels} channels, not 1 or 3")
    for place, before in zip(places, [places[0] - 2, *places], strict=False):
        weight, bias = tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"]
        if weight.shape[1:] != (channels, 3, 3):
            raise ValueError(f"features.{place}.weight is {tuple(weight.shape)}, not (…, {channels}, 3, 3)")
        if place - before not in (2, 3):
            raise ValueError(f"features.{place} does not follow features.{before}")
        if place - before == 3:
            blocks.append([])
        convolution = nn.Conv2d(channels, len(weight), 3, padding=1)
        with torch.no_grad():
            convolution.weight.copy_(weight)
            convolution.bias.copy_(bias)  # type: ignore[union-attr]
        blocks[-1].append(convolution)
        channels = len(weight)
    return tuple(map(tuple, blocks))
