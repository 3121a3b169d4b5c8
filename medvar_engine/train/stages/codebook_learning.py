"""Training of the codebook: codes follow the mean of their vectors, and unused codes are restarted from data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medvar_engine.models.quantizer import MultiScaleQuantizer, Quantized
from medvar_engine.train.distributed.processes import Processes

COUNT_DECAY = 0.98
DEAD = 0.03  # a code with less than this fraction of the mean use counts as dead
VECTORS_PER_SCALE = (
    256  # candidates for restarts; a limit, so that the finest scale with its many tokens does not dominate
)


@dataclass(frozen=True)
class CodeUse:
    """How often a batch uses each code; can be summed over micro-batches and processes."""

    count: Tensor  # (V,) number of vectors of each code
    sum: Tensor  # (V, C) sum of these vectors
    hits: Tensor  # (K, V) number of vectors per scale
    images: Tensor  # () number of images

    @staticmethod
    @torch.no_grad()
    def of(quantizer: MultiScaleQuantizer, quantized: Quantized) -> CodeUse:
        """The use of codes by one micro-batch."""
        index, vectors = torch.cat([t.flatten() for t in quantized.tokens]), torch.cat(quantized.residuals).float()
        total = torch.zeros_like(quantizer.codebook.weight).index_add_(0, index, vectors)
        hits = torch.stack([t.flatten().bincount(minlength=quantizer.vocabulary) for t in quantized.tokens]).float()
        return CodeUse(hits.sum(0), total, hits, torch.tensor(float(len(quantized.latent)), device=hits.device))

    def __add__(self, other: CodeUse) -> CodeUse:
        return CodeUse(
            self.count + other.count, self.sum + other.sum, self.hits + other.hits, self.images + other.images
        )

    def everywhere(self, processes: Processes) -> CodeUse:
        """The use summed over all processes."""
        return CodeUse(*(processes.add(tensor.clone()) for tensor in (self.count, self.sum, self.hits, self.images)))


class CodebookFollower(nn.Module):
    """Moving averages of a codebook's use (arXiv 1711.00937, appendix A.1).

    A module, so that checkpoints contain it.
    """

    def __init__(self, quantizer: MultiScaleQuantizer) -> None:
        super().__init__()
        self.register_buffer(
            "count", torch.zeros(quantizer.vocabulary)
        )  # average number of vectors of each code per step
        self.register_buffer(
            "sum", torch.zeros(quantizer.vocabulary, quantizer.channels)
        )  # average sum of these vectors

    @property
    def started(self) -> bool:
        """Whether the averages contain any batch."""
        return bool(self.get_buffer("count").any())

    @torch.no_grad()
    def follow(self, quantizer: MultiScaleQuantizer, use: CodeUse, decay: float = COUNT_DECAY) -> None:
        """Move each code towards the mean of its vectors, and update its use per scale."""
        count, total = self.get_buffer("count"), self.get_buffer("sum")
        count.lerp_(use.count, 1 - decay)
        total.lerp_(use.sum, 1 - decay)
        used = count > 1e-3
        quantizer.codebook.weight[used] = total[used] / count[used, None]
        self.keep_count(quantizer, use, decay)

    @torch.no_grad()
    def keep_count(self, quantizer: MultiScaleQuantizer, use: CodeUse, decay: float = COUNT_DECAY) -> None:
        """Update only the use per scale, for codes that are trained by gradients."""
        quantizer.get_buffer("usage").lerp_(use.hits / use.images, 1 - decay)

    @torch.no_grad()
    def adopt(self, quantizer: MultiScaleQuantizer, batch_size: int) -> None:
        """Initialise the averages from a trained codebook and its stored use."""
        count = quantizer.get_buffer("usage").sum(0) * batch_size
        self.get_buffer("count").copy_(count)
        self.get_buffer("sum").copy_(quantizer.codebook.weight * count[:, None])

    def restart_all(self, quantizer: MultiScaleQuantizer, quantized: Quantized) -> None:
        """Replace all codes by random data vectors."""
        self._restart(quantizer, quantized, torch.arange(quantizer.vocabulary, device=quantizer.codebook.weight.device))

    def restart_dead(self, quantizer: MultiScaleQuantizer, quantized: Quantized) -> None:
        """Replace codes that no scale has used for some time by random data vectors."""
        even = quantizer.schedule.tokens / quantizer.vocabulary
        dead = (quantizer.get_buffer("usage").sum(0) < DEAD * even).nonzero().flatten()
        self._restart(quantizer, quantized, dead)

    @torch.no_grad()
    def same_everywhere(self, quantizer: MultiScaleQuantizer, processes: Processes) -> None:
        """Copy the main process's codebook to all processes after a restart, for which each drew its own vectors."""
        for tensor in (quantizer.codebook.weight, self.get_buffer("count"), self.get_buffer("sum")):
            processes.take_from_main(tensor.data)

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
