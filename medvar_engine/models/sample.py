"""Simple sampling in torch, to view images during training. Generation proper is in `medvar_engine.generate`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medvar_engine.models.any_tokenizer import Quantizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.request import PLAUSIBLE, Sampling


@torch.no_grad()
def sample(
    transformer: Transformer,
    quantizer: Quantizer,
    labels: Tensor,
    sampling: Sampling,
    *,
    guide: Transformer | None = None,
    known: tuple[Tensor, ...] = (),
    generator: torch.Generator | None = None,
) -> tuple[Tensor, ...]:
    """Draw K token maps ``(B, L_k)`` for labels ``(B, F)``. The coarsest scales are those of ``known``.

    Guidance moves away from ``guide``, or else from the transformer itself without the condition.
    """
    scales = [sampling.at(k, len(transformer.schedule)) for k in range(len(transformer.schedule))]
    asked, weaker = _Prefix(transformer, labels), None
    if any(scale.guidance for scale in scales):
        network = guide or transformer
        weaker = _Prefix(network, torch.tensor(network.config.labels, device=labels.device).expand_as(labels))
    combine = _guide_away if guide else _guide
    scale_features, latent = None, torch.zeros((), device=labels.device)
    maps: list[Tensor] = []
    for k, scale in enumerate(scales):
        logits = asked.step(scale_features, k)
        if weaker is not None:
            logits = combine(logits, weaker.step(scale_features, k), scale.guidance)
        maps.append(known[k] if k < len(known) else _draw(logits, scale, generator))
        with torch.autocast(labels.device.type, enabled=False):  # the sum over scales needs float32
            latent = latent + quantizer.lift(maps[-1], k)
            if k + 1 < len(transformer.schedule):
                scale_features = quantizer.pool(latent, k + 1)
    return tuple(maps)


class _Prefix:
    """A transformer with the labels it is given, and the keys and values of the scales it has seen."""

    def __init__(self, transformer: Transformer, labels: Tensor) -> None:
        self._transformer, self._labels = transformer, labels
        self._past: Tensor | None = None

    def step(self, scale_features: Tensor | None, k: int) -> Tensor:
        """Logits of scale k ``(B, L_k, V)``."""
        logits, present = self._transformer.step(self._labels, scale_features, self._past, k)
        self._past = present if self._past is None else torch.cat((self._past, present), dim=4)
        return logits.float()


def _guide(logits: Tensor, weaker: Tensor, strength: float) -> Tensor:
    """As `medvar_engine.generate.sampling.guide`."""
    return (1 + strength) * logits - strength * weaker


def _guide_away(logits: Tensor, weaker: Tensor, strength: float) -> Tensor:
    """As `medvar_engine.generate.sampling.guide_away`, but implausible tokens are never drawn."""
    least = logits.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    return _guide(logits, weaker, strength).masked_fill(logits < least, -torch.inf)


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
