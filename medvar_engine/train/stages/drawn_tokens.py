"""Tokens drawn by a transformer from true coarser scales, on which a refiner is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from medvar_engine.conditions import LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.interpolate import resize
from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer
from medvar_engine.models.sample import sample
from medvar_engine.models.transformer import Transformer
from medvar_engine.request import Sampling

SHARE = 0.5  # share of images with drawn tokens; the others keep their true tokens


class DrawnTokens:
    """Draws the finest scales of some images of a batch, one after the other as in generation."""

    def __init__(
        self,
        quantizer: ResolutionQuantizer,
        transformer: Transformer,
        labels: LabelSpace,
        data: SliceDataset,
        scales: int,
        sampling: Sampling,
        guide: Transformer | None = None,
    ) -> None:
        """``scales`` is the number of finest scales to draw; ``labels`` are those of ``transformer``.

        Guidance moves away from ``guide``, or else from the transformer itself without the condition.
        """
        if scales >= len(quantizer.schedule):
            raise MedvarError(
                f"drawn_scales must leave at least one scale true: set it below {len(quantizer.schedule)}, not "
                f"{scales}."
            )
        self._quantizer, self._transformer = quantizer, transformer.eval().requires_grad_(False)
        self._guide = None if guide is None else guide.eval().requires_grad_(False)
        self._first, self._sampling = len(quantizer.schedule) - scales, sampling
        encoded = [labels.encode(labels.known(condition)) for condition in data.conditions.distinct]
        self._labels = torch.tensor(encoded, dtype=torch.int64, device=next(transformer.parameters()).device)

    @torch.no_grad()
    def __call__(self, tokens: tuple[Tensor, ...], condition_codes: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Replace tokens of some images by drawn ones; returns the token maps, and which images were drawn ``(B,)``.

        ``tokens`` are true token maps ``(B, L_k)``, ``condition_codes`` ``(B,)`` the conditions.
        """
        count = int(
            len(condition_codes) * SHARE + torch.rand(()).item()
        )  # rounded at random, so that a batch of one counts
        some = torch.randperm(len(condition_codes), device=condition_codes.device)[:count]
        drawn_ones = torch.zeros_like(condition_codes, dtype=torch.bool).index_fill(0, some, True)
        if not len(some):
            return tokens, drawn_ones
        known = tuple(own[some] for own in tokens[: self._first])
        drawn = sample(
            self._transformer,
            self._quantizer,
            self._labels[condition_codes[some]],
            self._sampling,
            guide=self._guide,
            known=known,
        )
        maps = tuple(own.index_copy(0, some, new) for own, new in zip(tokens, drawn, strict=True))
        return maps, drawn_ones

    def certain(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Images ``(B, 1, H, W)``; those that are ``drawn`` are reduced to the resolution of their true scales.

        Drawn detail is at other positions than in the slice. A pixel-wise loss would therefore favour no detail at all.
        """
        down, up = (self._quantizer.get_buffer(f"{way}_{self._first - 1}") for way in ("down", "up"))
        with torch.autocast(images.device.type, enabled=False):
            coarse = resize(resize(images, down), up)
        return torch.where(drawn[:, None, None, None], coarse, images)
