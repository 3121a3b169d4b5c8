"""Plain sampling in torch, for looking at a model while it trains. `medvar_engine.generate` is the real thing."""

from __future__ import annotations

import torch
from torch import Tensor

from medvar_engine.models.any_tokenizer import Quantizer
from medvar_engine.models.transformer import Transformer


@torch.no_grad()
def sample(
    transformer: Transformer, quantizer: Quantizer, labels: Tensor, *, top_k: int, seed: int
) -> tuple[Tensor, ...]:
    """Labels ``(B, F)`` → K token maps ``(B, L_k)``, without guidance, the best ``top_k`` tokens kept."""
    generator = torch.Generator(labels.device).manual_seed(seed)
    past, features, latent = None, None, torch.zeros((), device=labels.device)
    maps: list[Tensor] = []
    for k in range(len(transformer.schedule)):
        logits, present = transformer.step(labels, features, past, k)
        past = present if past is None else torch.cat((past, present), dim=4)
        values, index = logits.float().topk(min(top_k, logits.shape[-1]), dim=-1)
        choice = torch.multinomial(values.softmax(-1).flatten(0, 1), 1, generator=generator)
        maps.append(index.flatten(0, 1).gather(1, choice).view(logits.shape[:2]))
        latent = latent + quantizer.lift(maps[-1], k)
        features = quantizer.pool(latent, k + 1) if k + 1 < len(transformer.schedule) else None
    return tuple(maps)
