"""Teacher forcing: what the transformer sees of each scale, and what it is to say."""

from __future__ import annotations

import torch
from torch import Tensor

from medvar_engine.models.any_tokenizer import Quantizer
from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer

Maps = tuple[Tensor, ...]
SIMILAR = 16  # codes among which a replaced token is chosen


def plain(quantizer: Quantizer, tokens: Maps) -> tuple[Tensor, Tensor]:
    """K maps ``(B, L_k)`` → features of scales 1…K-1 ``(B, L - L_0, C)``, targets ``(B, L)``."""
    return quantizer.features(tokens), torch.cat(tokens, 1)


def corrupted(quantizer: MultiScaleQuantizer, tokens: Maps, share: float) -> tuple[Tensor, Tensor]:
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
    for k in range(len(tokens)):
        left = quantizer.pool(latent - total, k)
        again = quantizer.nearest(left.flatten(0, 1)).view(tokens[k].shape)
        targets.append(torch.where(clean, tokens[k], again))
        if k + 1 < len(tokens):
            replaced = torch.rand(targets[k].shape, device=device) < rates
            others = torch.randint(quantizer.vocabulary, targets[k].shape, device=device)
            clean = clean & ~replaced.any(1, keepdim=True)
            total = total + quantizer.lift(torch.where(replaced, others, targets[k]), k)
            features.append(quantizer.pool(total, k + 1))
    return torch.cat(features, 1), torch.cat(targets, 1)


def encoded(
    quantizer: ResolutionQuantizer, canvas: Tensor, share: float, similar: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`plain` of images folded as canvases ``(B, p², side, side)``, encoded now.

    Of each image up to ``share`` of the tokens that the transformer sees are replaced by similar ones, of which
    ``similar`` ``(K, V, SIMILAR)`` is the table. Each scale's targets code what the scales before, replaced tokens
    included, have left of the image: so the transformer learns to mend its own mistakes.
    """
    rest, seen, features, targets = canvas, torch.zeros_like(canvas), [], []
    rates = torch.rand(len(canvas), 1, device=canvas.device) * share
    for k in range(len(quantizer.schedule)):
        if k > 0:
            features.append(quantizer.pool(seen, k))
        tokens = quantizer.nearest(quantizer.residual(rest, k), k)
        targets.append(tokens)
        if similar is not None:
            others = similar[k][tokens, torch.randint(SIMILAR, tokens.shape, device=tokens.device)]
            tokens = torch.where(torch.rand(tokens.shape, device=tokens.device) < rates, others, tokens)
        added = quantizer.lift(tokens, k)
        seen, rest = seen + added, rest - added
    return torch.cat(features, 1), torch.cat(targets, 1)


def similar_codes(quantizer: ResolutionQuantizer) -> Tensor:
    """Of every scale and code the most similar other codes, ``(K, V, SIMILAR)``."""
    each = [quantizer.patches(k) for k in range(len(quantizer.schedule))]
    return torch.stack([torch.cdist(p, p).topk(SIMILAR + 1, largest=False).indices[:, 1:] for p in each])
