"""Teacher forcing: what the transformer sees of each scale, and what it is to say."""

from __future__ import annotations

import torch
from torch import Tensor

from medvar_engine.models.quantizer import MultiScaleQuantizer

Maps = tuple[Tensor, ...]


def plain(quantizer: MultiScaleQuantizer, tokens: Maps, depth: int) -> tuple[Tensor, Tensor]:
    """The first ``depth`` of K maps ``(B, L_k)`` → features of scales 1…  ``(B, L - L_0, C)``, targets ``(B, L)``."""
    return quantizer.features(tokens[:depth]), torch.cat(tokens[:depth], 1)


def corrupted(quantizer: MultiScaleQuantizer, tokens: Maps, depth: int, share: float) -> tuple[Tensor, Tensor]:
    """`plain`, with tokens replaced at random that finer scales are to mend (Infinity, arXiv 2412.04431, section 3.3).

    Of each image up to ``share`` of the tokens that the transformer sees are others. From the first such one on, an
    image's targets are coded anew: each scale's is what then remains of the whole latent, for which the sum of all
    tokens stands.
    """
    latent = quantizer.decode(tokens)
    count, device = len(latent), latent.device
    rates = torch.rand(count, 1, device=device) * share
    clean = torch.ones(count, 1, dtype=torch.bool, device=device)
    total, features, targets = torch.zeros_like(latent), [], []
    for k in range(depth):
        left = quantizer.pool(latent - total, k)
        again = quantizer.nearest(left.flatten(0, 1)).view(tokens[k].shape)
        targets.append(torch.where(clean, tokens[k], again))
        if k + 1 < depth:
            replaced = torch.rand(targets[k].shape, device=device) < rates
            others = torch.randint(quantizer.vocabulary, targets[k].shape, device=device)
            clean = clean & ~replaced.any(1, keepdim=True)
            total = total + quantizer.lift(torch.where(replaced, others, targets[k]), k)
            features.append(quantizer.pool(total, k + 1))
    return torch.cat(features, 1), torch.cat(targets, 1)
