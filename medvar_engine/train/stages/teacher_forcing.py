"""Teacher forcing: the input features and the target tokens of the transformer for each scale."""

from __future__ import annotations

import torch
from torch import Tensor

from medvar_engine.models.any_tokenizer import Quantizer
from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer

Maps = tuple[Tensor, ...]
SIMILAR = 16  # number of similar codes from which a replacement is chosen


def plain(quantizer: Quantizer, tokens: Maps) -> tuple[Tensor, Tensor]:
    """The n coarsest token maps ``(B, L_k)`` → features of scales 1…n-1 ``(B, L - L_0, C)`` and targets ``(B, L)``."""
    return quantizer.scale_features(tokens), torch.cat(tokens, 1)


def corrupted(quantizer: MultiScaleQuantizer, tokens: Maps, share: float, scales: int) -> tuple[Tensor, Tensor]:
    """`plain` with random wrong tokens, which finer scales learn to correct (Infinity, arXiv 2412.04431, section 3.3).

    ``tokens`` are those of all scales; the result is for the ``scales`` coarsest ones.

    In each image, a random share of the input tokens, at most ``share``, is replaced. From the first replaced scale on,
    the targets are computed again: each scale encodes the residual that then remains of the whole latent, the sum of
    all tokens.
    """
    latent = quantizer.decode(tokens)
    count, device = len(latent), latent.device
    rates = torch.rand(count, 1, device=device) * share
    clean = torch.ones(count, 1, dtype=torch.bool, device=device)
    total, features, targets = torch.zeros_like(latent), [], []
    for k in range(scales):
        left = quantizer.pool(latent - total, k)
        again = quantizer.nearest(left.flatten(0, 1)).view(tokens[k].shape)
        targets.append(torch.where(clean, tokens[k], again))
        if k + 1 < scales:
            replaced = torch.rand(targets[k].shape, device=device) < rates
            others = torch.randint(quantizer.vocabulary, targets[k].shape, device=device)
            clean = clean & ~replaced.any(1, keepdim=True)
            total = total + quantizer.lift(torch.where(replaced, others, targets[k]), k)
            features.append(quantizer.pool(total, k + 1))
    return torch.cat(features, 1), torch.cat(targets, 1)


def encoded(
    quantizer: ResolutionQuantizer, canvas: Tensor, share: float, similar: Tensor | None, scales: int
) -> tuple[Tensor, Tensor]:
    """`plain` for the ``scales`` coarsest scales of images folded as canvases ``(B, p², side, side)``, encoded here.

    In each image, a random share of the input tokens, at most ``share``, is replaced by similar ones from the table
    ``similar`` ``(K, V, SIMILAR)``. The targets of each scale encode the residual of the earlier scales with the
    replaced tokens, so that the transformer learns to correct its errors.
    """
    rest, seen, features, targets = canvas, torch.zeros_like(canvas), [], []
    rates = torch.rand(len(canvas), 1, device=canvas.device) * share
    for k in range(scales):
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
    """The most similar other codes of every code of every scale, ``(K, V, SIMILAR)``."""
    each = [quantizer.patches(k) for k in range(len(quantizer.schedule))]
    return torch.stack([torch.cdist(p, p).topk(SIMILAR + 1, largest=False).indices[:, 1:] for p in each])
