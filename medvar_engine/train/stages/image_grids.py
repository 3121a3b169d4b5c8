"""Writes grids of images as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.value_range import grey_levels


def scale_previews(tokenizer: AnyTokenizer, tokens: tuple[Tensor, ...]) -> Tensor:
    """The previews of all K scales, from coarse to fine: ``(B, K, C, H, W)``."""
    latents = [tokenizer.quantizer.decode(tokens[: k + 1]) for k in range(len(tokens))]
    preview = tokenizer.preview if isinstance(tokenizer, ResolutionTokenizer) else tokenizer.decode
    return torch.stack([*(preview(latent) for latent in latents[:-1]), tokenizer.decode(latents[-1])], 1)


def write_grid(path: Path, images: Tensor, columns: int) -> None:
    """Write images ``(N, C, H, W)`` in [-1, 1] as one PNG, row by row; only the first channel is shown."""
    pixels = grey_levels(images[:, 0].detach().float().cpu().numpy())
    rows = -(-len(pixels) // columns)
    height, width = pixels.shape[1:]
    canvas = np.zeros((rows * height, columns * width), dtype=np.uint8)
    for i, image in enumerate(pixels):
        y, x = divmod(i, columns)
        canvas[y * height : (y + 1) * height, x * width : (x + 1) * width] = image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(path)
