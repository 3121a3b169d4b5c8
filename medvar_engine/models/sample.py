"""Simple sampling in torch, to view images during training. Generation proper is in `medvar_engine.generate`."""

from __future__ import annotations

import torch
from torch import Tensor

from medvar_engine.models.any_tokenizer import Quantizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.request import Sampling


@torch.no_grad()
def sample(
    transformer: Transformer,
    quantizer: Quantizer,
    labels: Tensor,
    sampling: Sampling,
    *,
    known: tuple[Tensor, ...] = (),
    generator: torch.Generator | None = None,
) -> tuple[Tensor, ...]:
    """Draw K token maps ``(B, L_k)`` for labels ``(B, F)``. The coarsest scales are those of ``known``."""
    strengths = [sampling.guidance_of(k, len(transformer.schedule)) for k in range(len(transformer.schedule))]
    nothing = torch.tensor(transformer.config.labels, device=labels.device).expand_as(labels)
    guided = any(strengths)
    asked = torch.cat((labels, nothing)) if guided else labels
    past, scale_features, latent = None, None, torch.zeros((), device=labels.device)
    maps: list[Tensor] = []
    for k, strength in enumerate(strengths):
        logits, present = transformer.step(asked, scale_features, past, k)
        past = present if past is None else torch.cat((past, present), dim=4)
        logits = _guided(logits.float(), len(labels), strength)
        maps.append(known[k] if k < len(known) else _draw(logits, sampling, generator))
        with torch.autocast(labels.device.type, enabled=False):  # the sum over scales needs float32
            latent = latent + quantizer.lift(maps[-1], k)
            if k + 1 < len(transformer.schedule):
                scale_features = quantizer.pool(latent, k + 1).repeat(2 if guided else 1, 1, 1)
    return tuple(maps)


def _guided(logits: Tensor, count: int, strength: float) -> Tensor:
    """Classifier-free guidance: logits with the condition ``(count, L, V)``, and perhaps as many without it."""
    return logits if len(logits) == count else (1 + strength) * logits[:count] - strength * logits[count:]


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One token of each ``(B, L, V)`` → ``(B, L)``, by temperature, top-k and top-p."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    values, index = (logits / sampling.temperature).topk(
        min(sampling.top_k or logits.shape[-1], logits.shape[-1]), dim=-1
    )
    probability = values.softmax(-1)
    likelier = probability.cumsum(-1) - probability
    kept = probability.masked_fill(likelier >= sampling.top_p, 0.0)
    choice = torch.multinomial(kept.flatten(0, 1), 1, generator=generator)
    return index.flatten(0, 1).gather(1, choice).view(logits.shape[:2])
