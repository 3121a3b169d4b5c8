"""A small U-Net of MONAI that segments slices, to evaluate pairs of image and mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.encoders.image_source import Images
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.mask_source import Masks
from medvar_engine.evaluate.metrics.dice import overlap_counts
from medvar_engine.train.augment import augment
from medvar_engine.types import IntArray

BATCH, LEARNING_RATE = 8, 2e-3
LARGEST_SIDE = 128  # largest side of the segmented images in pixels; larger images are reduced
_CHANNELS, _HALVINGS = (16, 32, 64, 128), 3
_CHUNK = 32  # slices in one forward pass


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images, their masks, and the indices of the pairs that are used."""

    images: Images
    masks: Masks
    rows: IntArray

    def batch(self, rows: IntArray, side: int) -> Tensor:
        """Images, and numbers of structures: ``(B, 2, side, side)``."""
        images = torch.from_numpy(self.images.batch(rows))[:, None]
        masks = torch.from_numpy(self.masks.batch(rows).astype(np.float32))[:, None]
        return torch.cat((resized(images, side), F.interpolate(masks, size=(side, side), mode="nearest-exact")), 1)


def side_of(pixels: int) -> int:
    """The side in pixels to which images with this side are reduced for a segmenter."""
    multiple = 2**_HALVINGS
    return max(2 * multiple, min(LARGEST_SIDE, pixels) // multiple * multiple)


def resized(images: Tensor, side: int) -> Tensor:
    """``(B, 1, H, W)`` → ``(B, 1, side, side)``, by averages of pixels."""
    if images.shape[-1] == side:
        return images
    if images.shape[-1] > side:
        return F.interpolate(images, size=(side, side), mode="area")
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def trained_segmenter(
    sources: Sequence[Pairs], side: int, steps: int, seed: int, report: Callable[[int], None] | None = None
) -> nn.Module:
    """A U-Net trained for ``steps`` batches, to which every source contributes equally many pairs.

    Its output is a score of the background and of each structure, ``(B, M + 1, side, side)``. Slices without
    structures are used, too. Raises `MedvarError` when a source has no pairs.
    """
    from monai.losses import DiceCELoss

    if not all(len(source.rows) for source in sources):
        raise MedvarError("There are no pairs of image and mask to learn from.")
    torch.manual_seed(seed)
    network = _network(len(sources[0].masks.structures) + 1).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        drawn = [source.batch(rng.choice(source.rows, BATCH // len(sources)), side) for source in sources]
        pairs = augment(torch.cat(drawn), masks=True)
        loss = loss_of(network(pairs[:, :1]), pairs[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if report is not None:
            report(step + 1)
    return network.eval()


@torch.no_grad()
def overlaps(network: nn.Module, pairs: Pairs, side: int) -> IntArray:
    """`overlap_counts` of the network's segmentations and the masks of images: ``(N, M, 3)``."""
    structures, found = len(pairs.masks.structures), []
    for rows in np.array_split(pairs.rows, max(1, -(-len(pairs.rows) // _CHUNK))):
        batch = pairs.batch(rows, side)
        guessed, real = network(batch[:, :1]).argmax(1).numpy(), batch[:, 1].numpy().round()
        found.append(overlap_counts(guessed, real, structures))
    return np.concatenate(found)


def _network(classes: int) -> nn.Module:
    from monai.networks.nets import UNet

    network: nn.Module = UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=classes,
        channels=_CHANNELS,
        strides=(2,) * _HALVINGS,
        num_res_units=1,
    )
    return network
