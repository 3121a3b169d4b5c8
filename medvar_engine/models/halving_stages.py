"""The convolutional stages of the small SimCLR encoder: features of slices at decreasing resolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def halving_stages(channels: Sequence[int]) -> nn.Sequential:
    """Stages of one convolution each, with the given numbers of channels (multiples of 8). Each halves the side length.

    Group normalisation treats each image separately, so features do not depend on the other images of a batch.
    """
    stages: list[nn.Module] = []
    for before, after in zip([1, *channels], channels, strict=False):
        stages += [
            nn.AvgPool2d(2, stride=1),  # smoothing before halving, so that features are invariant to small shifts
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(after // 8, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*stages)


def from_darkest(image: Tensor) -> Tensor:
    """``(B, 1, H, W)`` shifted so that the darkest pixel of each image is 0, like the zero padding of convolutions."""
    return image - image.amin((1, 2, 3), keepdim=True)
