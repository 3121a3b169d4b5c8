"""How the codebook learns: codes follow the vectors that choose them, and dead codes start anew where the data is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medvar_engine.models.quantizer import MultiScaleQuantizer, Quantized
from medvar_engine.train.distributed.processes import World

COUNT_DECAY = 0.98
DEAD = 0.03  # a code used less than this share of an even use is dead
VECTORS_PER_SCALE = 256  # offered for restarts, so that the many tokens of the finest scale do not drown the others


@dataclass(frozen=True)
class Use:
    """Which codes a batch chose; adds up over its parts and over processes."""

    count: Tensor  # (V,) vectors that chose each code
    sum: Tensor  # (V, C) their sum
    hits: Tensor  # (K, V) the same count a scale
    images: Tensor  # ()

    @staticmethod
    @torch.no_grad()
    def of(quantizer: MultiScaleQuantizer, quantized: Quantized) -> Use:
        """The use by one part of a batch."""
        index, vectors = torch.cat([t.flatten() for t in quantized.tokens]), torch.cat(quantized.residuals).float()
        total = torch.zeros_like(quantizer.codebook.weight).index_add_(0, index, vectors)
        hits = torch.stack([t.flatten().bincount(minlength=quantizer.vocabulary) for t in quantized.tokens]).float()
        return Use(hits.sum(0), total, hits, torch.tensor(float(len(quantized.latent)), device=hits.device))

    def __add__(self, other: Use) -> Use:
        return Use(self.count + other.count, self.sum + other.sum, self.hits + other.hits, self.images + other.images)

    def everywhere(self, world: World) -> Use:
        """That of all processes."""
        return Use(*(world.add(tensor.clone()) for tensor in (self.count, self.sum, self.hits, self.images)))


class CodebookFollower(nn.Module):
    """Moving averages over a codebook's use (arXiv 1711.00937, appendix A.1). A module, to be kept in checkpoints."""

    def __init__(self, quantizer: MultiScaleQuantizer) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(quantizer.vocabulary))  # vectors a step that chose each code
        self.register_buffer("sum", torch.zeros(quantizer.vocabulary, quantizer.channels))  # their sum

    @property
    def started(self) -> bool:
        """Whether any batch has been followed."""
        return bool(self.get_buffer("count").any())

    @torch.no_grad()
    def follow(self, quantizer: MultiScaleQuantizer, use: Use, decay: float = COUNT_DECAY) -> None:
        """Move each code towards the mean of the vectors that chose it, and keep count of its use a scale."""
        count, total = self.get_buffer("count"), self.get_buffer("sum")
        count.lerp_(use.count, 1 - decay)
        total.lerp_(use.sum, 1 - decay)
        used = count > 1e-3
        quantizer.codebook.weight[used] = total[used] / count[used, None]
        self.keep_count(quantizer, use, decay)

    @torch.no_grad()
    def keep_count(self, quantizer: MultiScaleQuantizer, use: Use, decay: float = COUNT_DECAY) -> None:
        """Only the count of each scale's use, for codes that gradients move."""
        quantizer.get_buffer("usage").lerp_(use.hits / use.images, 1 - decay)

    @torch.no_grad()
    def adopt(self, quantizer: MultiScaleQuantizer, batch_size: int) -> None:
        """Start from a trained codebook as if its use so far had been followed."""
        count = quantizer.get_buffer("usage").sum(0) * batch_size
        self.get_buffer("count").copy_(count)
        self.get_buffer("sum").copy_(quantizer.codebook.weight * count[:, None])

    def restart_all(self, quantizer: MultiScaleQuantizer, quantized: Quantized) -> None:
        """Put the whole codebook where the data is."""
        self._restart(quantizer, quantized, torch.arange(quantizer.vocabulary, device=quantizer.codebook.weight.device))

    def restart_dead(self, quantizer: MultiScaleQuantizer, quantized: Quantized) -> None:
        """Move the codes that no scale has used for a while to where the data is."""
        even = quantizer.schedule.tokens / quantizer.vocabulary
        dead = (quantizer.get_buffer("usage").sum(0) < DEAD * even).nonzero().flatten()
        self._restart(quantizer, quantized, dead)

    @torch.no_grad()
    def same_everywhere(self, quantizer: MultiScaleQuantizer, world: World) -> None:
        """After a restart, for which each process has drawn vectors of its own: those of the leader."""
        for tensor in (quantizer.codebook.weight, self.get_buffer("count"), self.get_buffer("sum")):
            world.take_from_leader(tensor.data)

    @torch.no_grad()
    def _restart(self, quantizer: MultiScaleQuantizer, quantized: Quantized, codes: Tensor) -> None:
        if len(codes) == 0:
            return
        vectors = torch.cat(
            [r[torch.randperm(len(r), device=r.device)[:VECTORS_PER_SCALE]] for r in quantized.residuals]
        )
        chosen = vectors[torch.randint(len(vectors), (len(codes),), device=vectors.device)]
        quantizer.codebook.weight[codes] = chosen.to(quantizer.codebook.weight)
        self.get_buffer("count")[codes] = 1.0
        self.get_buffer("sum")[codes] = chosen.to(self.get_buffer("sum"))
