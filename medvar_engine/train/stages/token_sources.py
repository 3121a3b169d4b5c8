"""Sources of tokens for training the transformer: slices encoded during training, or pyramids encoded in advance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import BatchDraw
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.image_batches import ImageBatches
from medvar_engine.train.stage import Batch, Batches
from medvar_engine.train.stages.teacher_forcing import Maps, corrupted, encoded, plain, similar_codes
from medvar_engine.untrusted.plain_npy import open_npy

COARSE = 2  # number of scales that are learned from ``coarse_slices``
Examples = tuple[Tensor, Tensor, Tensor]
"""Labels ``(B, F)``, features of scales 1…k ``(B, L - L_0, C)`` and targets ``(B, L)``, L being the tokens of 0…k."""


class Source(Protocol):
    """A source of tokens."""

    @property
    def batches(self) -> Batches:
        """The micro-batches to read."""

    def __call__(self, batch: Batch) -> tuple[Examples, ...]:
        """Examples with all scales; then, with ``coarse_slices``, examples with the coarsest scales only."""


class EncodedBefore:
    """Tokens of pyramids that were encoded in advance, for tokenizers with a large encoder."""

    def __init__(self, quantizer: MultiScaleQuantizer, batches: PyramidBatches, config: TrainConfig) -> None:
        self.batches, self._quantizer, self._config = batches, quantizer, config

    def __call__(self, batch: Batch) -> tuple[Examples, ...]:
        """See `Source`."""
        flat, labels = batch
        schedule = self._quantizer.schedule
        return tuple(
            (labels[rows], *self._features_and_targets(flat[rows].split(schedule.token_counts, dim=1), scales))
            for rows, scales in _groups(len(flat), len(schedule), self._config)
        )

    def _features_and_targets(self, tokens: Maps, scales: int) -> tuple[Tensor, Tensor]:
        if self._config.corruption:
            return corrupted(self._quantizer, tokens, self._config.corruption, scales)
        return plain(self._quantizer, tokens[:scales])


class EncodedNow:
    """Tokens of slices that are augmented and encoded during training, so that every augmentation is new."""

    def __init__(
        self, tokenizer: ResolutionTokenizer, data: SliceDataset, labels: Tensor, draw: BatchDraw, config: TrainConfig
    ) -> None:
        """``labels`` ``(slice types, F)`` are the labels of the slice types in ``data``."""
        self._masks = bool(tokenizer.config.structures)
        self.batches = ImageBatches(data, draw, self._masks)
        self._tokenizer, self._labels, self._config = tokenizer, labels, config
        self._similar = similar_codes(tokenizer.quantizer) if config.corruption else None

    def __call__(self, batch: Batch) -> tuple[Examples, ...]:
        """See `Source`."""
        images, hounsfield, condition_codes = batch
        if self._config.augment:
            images = augment(images, hounsfield, masks=self._masks)
        latent, labels = self._tokenizer.latent(images), self._labels[condition_codes]
        quantizer, corruption = self._tokenizer.quantizer, self._config.corruption
        return tuple(
            (labels[rows], *encoded(quantizer, latent[rows], corruption, self._similar, scales))
            for rows, scales in _groups(len(images), len(quantizer.schedule), self._config)
        )


def _groups(count: int, scales: int, config: TrainConfig) -> list[tuple[slice, int]]:
    """Rows of a micro-batch of ``count`` slices, and the number of scales that are learned from them."""
    whole = count * config.batch_size // (config.batch_size + config.coarse_slices)
    groups = [(slice(0, whole), scales), (slice(whole, count), min(COARSE, scales))]
    return groups if config.coarse_slices else groups[:1]


@dataclass(frozen=True)
class PyramidBatches:
    """Tokens and labels of each micro-batch; one of the variants of every slice is drawn."""

    pyramids: npt.NDArray[np.uint16]  # (variants, N, L)
    labels: npt.NDArray[np.int64]  # (N, F)
    draw: BatchDraw

    def __getitem__(self, key: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Tokens ``(B, L)`` and labels ``(B, F)``."""
        index, rng = self.draw(*key)
        count = self.draw.batch_size + self.draw.further
        variant = rng.integers(len(self.pyramids), size=count)[self.draw.share(key[1])]
        return self.pyramids[variant, index].astype(np.int64), self.labels[index]

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory map copies its content; a worker process opens the file instead.
        name = getattr(self.pyramids, "filename", None)
        kept = self.pyramids if name is None else (name, len(self.pyramids))
        return {"pyramids": kept, "labels": self.labels, "draw": self.draw}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["pyramids"], tuple):
            name, variants = state["pyramids"]
            state["pyramids"] = open_npy(Path(name))[:variants]
        self.__dict__.update(state)
