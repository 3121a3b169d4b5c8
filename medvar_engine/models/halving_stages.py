"""The convolutions of the small SimCLR encoder: features of slices at ever lower resolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def halving_stages(channels: Sequence[int]) -> nn.Sequential:
    """Stages of a convolution each, of so many channels, multiples of 8; every one halves the side.

    Group normalisation sees one image at a time, so features do not depend on what else is in the batch.
    """
    stages: list[nn.Module] = []
    for before, after in zip([1, *channels], channels, strict=False):
        stages += [
            nn.AvgPool2d(2, stride=1),  # halving without smoothing first would make features depend on the place
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(after // 8, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*stages)


def from_darkest(image: Tensor) -> Tensor:
    """``(B, 1, H, W)`` with the darkest pixel as 0, in any window, as is what convolutions see beyond the sides."""
    return image - image.amin((1, 2, 3), keepdim=True)
