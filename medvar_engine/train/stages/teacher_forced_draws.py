"""Tokens as a transformer draws them when the coarser scales are true: what a refiner must learn to mend."""

from __future__ import annotations

import torch
from torch import Tensor

from medvar_engine.conditions import LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.interpolate import resize
from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer
from medvar_engine.models.transformer import Transformer

SHARE = 0.5  # of images that are drawn; the others keep their true tokens
TOP_K, TOP_P = 200, 0.95


class TeacherForcedDraws:
    """Draws the finest scales of some images of a batch, each scale from the true coarser ones."""

    def __init__(
        self,
        quantizer: ResolutionQuantizer,
        transformer: Transformer,
        labels: LabelSpace,
        data: SliceDataset,
        scales: int,
    ) -> None:
        """The finest ``scales`` are drawn. ``labels`` are the names that ``transformer`` knows."""
        if scales >= len(quantizer.schedule):
            raise MedvarError(
                f"drawn_scales leaves at least one scale true: set it below {len(quantizer.schedule)}, not {scales}."
            )
        self._quantizer, self._transformer = quantizer, transformer.eval().requires_grad_(False)
        self._first = len(quantizer.schedule) - scales
        kinds = [labels.encode(labels.known(kind)) for kind in data.conditions.kinds]
        self._labels = torch.tensor(kinds, dtype=torch.int64, device=next(transformer.parameters()).device)

    @torch.no_grad()
    def __call__(self, tokens: tuple[Tensor, ...], kinds: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """True token maps ``(B, L_k)`` of slices of these ``kinds`` ``(B,)`` → the same with some drawn, and which."""
        some = torch.randperm(len(kinds), device=kinds.device)[: round(len(kinds) * SHARE)]
        with torch.autocast(tokens[0].device.type, enabled=False):
            features = self._quantizer.features(tuple(own[some] for own in tokens))
        logits = self._transformer(self._labels[kinds[some]], features).float()
        by_scale = logits.split(self._quantizer.schedule.token_counts, dim=1)
        maps = tuple(
            own if k < self._first else own.index_copy(0, some, _draw(by_scale[k])) for k, own in enumerate(tokens)
        )
        return maps, torch.zeros_like(kinds, dtype=torch.bool).index_fill(0, some, True)

    def certain(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Images ``(B, 1, H, W)``, those which are ``drawn`` with no more detail than their true scales have.

        Drawn detail lies elsewhere than in the slice. Compared pixel by pixel, none at all would be best.
        """
        down, up = (self._quantizer.get_buffer(f"{way}_{self._first - 1}") for way in ("down", "up"))
        with torch.autocast(images.device.type, enabled=False):
            coarse = resize(resize(images, down), up)
        return torch.where(drawn[:, None, None, None], coarse, images)


def _draw(logits: Tensor) -> Tensor:
    """One token of each ``(B, L, V)`` → ``(B, L)``, by top-k and top-p."""
    values, index = logits.topk(min(TOP_K, logits.shape[-1]), dim=-1)
    probability = values.softmax(-1)
    likelier = probability.cumsum(-1) - probability
    kept = probability.masked_fill(likelier >= TOP_P, 0.0)
    choice = torch.multinomial(kept.flatten(0, 1), 1)
    return index.flatten(0, 1).gather(1, choice).view(logits.shape[:2])
