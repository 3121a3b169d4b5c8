"""The `Backend` protocol: the networks of one bundle, numpy in and numpy out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medvar_engine.conditions import LabelSpace
from medvar_engine.masks.structures import Structures
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a backend runs, and on what it really runs."""

    provider: str  # e.g. "ONNX Runtime, CPUExecutionProvider" or "torch, cuda"
    precision: str  # of the arithmetic and the weights, e.g. "float32"
    schedule: ScaleSchedule
    labels: LabelSpace
    vocabulary: int  # V
    latent_channels: int  # of a latent
    feature_channels: int  # C of scale features
    image_size: int  # pixels a side
    image_channels: int
    bundle_id: str  # `Bundle.bundle_id`, or the sha256 of the weights of a model that was not exported; in every trace
    weights: str = ""  # sha256 of the weights that it was made from, where known; traces may carry that instead
    light_previews: bool = False  # whether scales on the way are shown by a light decoder
    structures: Structures = ()  # of the masks that come with images, by their values from 1 up; none without masks
    mask_scales: tuple[int, ...] = ()  # the scales that code masks; the others code the image

    @property
    def channels(self) -> int:
        """Channels of what is encoded and decoded: the image's, and one more for the mask of a pair."""
        return self.image_channels + (1 if self.structures else 0)

    def no_latent(self, rows: int) -> FloatArray:
        """The latent before scale 0, to which nothing has been added: ``(rows, C, H, W)``."""
        side = self.schedule.latent_side
        return np.zeros((rows, self.latent_channels, side, side), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class PrefixState:
    """Keys and values of the scales run so far. Opaque outside its backend, and never changed by it."""

    labels: IntArray  # (B, F)
    chunks: tuple[Any, ...] = ()  # arrays, one a scale, so that longer prefixes share the shorter ones

    @property
    def depth(self) -> int:
        """Scales run so far."""
        return len(self.chunks)

    def longer(self, chunk: Any) -> PrefixState:
        """This prefix and one scale more, whose keys and values are ``chunk``."""
        return PrefixState(self.labels, (*self.chunks, chunk))


class Backend(Protocol):
    """Runs the networks of one bundle. A prefix state stays on the device and is opaque outside."""

    info: BackendInfo

    @property
    def codebook(self) -> FloatArray | None:
        """The code of every token, ``(V, C)``, or ``(K, V, C)`` where every scale has its own; None if not known."""

    def start(self, labels: IntArray) -> PrefixState:
        """The empty prefix of labels ``(B, F)``, already doubled by the caller when guidance is on."""

    def step(self, state: PrefixState, maps: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        """One scale: input features ``maps`` ``(B, L_k, C)``, None at k = 0 → logits ``(B, L_k, V)``, longer prefix.

        Never changes ``state``: an old prefix can be continued twice, which is what resampling and candidates are.
        """

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """A prefix whose rows are rows of other prefixes of the same depth."""

    def summary(self, state: PrefixState) -> FloatArray:
        """Keys and values of a prefix, averaged over the tokens of each scale: ``(B, scales, depth, 2·width)``."""

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """Adds token map k ``(B, L_k)`` to the latent ``(B, C, H, W)``; gives it and the next scale's features.

        The features ``(B, L_{k+1}, C)`` are None after the finest scale.
        """

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """Images ``(B, image channels, H, W)`` in [-1, 1] → K token maps ``(B, L_k)``.

        A model of pairs takes one channel more: the number of the structure that each pixel shows, 0 for none.
        """

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """Latent ``(B, C, H, W)`` → images ``(B, image channels, H, W)`` in [-1, 1], and their masks as `encode` has.

        ``preview`` may use a lighter decoder when the bundle has one.
        """


def gather_rows(rows: Sequence[tuple[PrefixState, int]], gather: Callable[[list[tuple[Any, int]]], Any]) -> PrefixState:
    """`Backend.gather`; ``gather`` makes one chunk of rows of others, all of one scale."""
    if whole := one_state(rows):
        return whole
    chunks = tuple(gather([(state.chunks[k], row) for state, row in rows]) for k in range(rows[0][0].depth))
    labels = np.stack([state.labels[row] for state, row in rows])
    return PrefixState(labels, chunks)


def average_tokens(state: PrefixState, average: Callable[[Any], FloatArray]) -> FloatArray:
    """`Backend.summary`; ``average`` gives a chunk's mean over tokens, ``(depth, 2, B, heads, d)``."""
    scales = [np.moveaxis(average(chunk), 2, 0) for chunk in state.chunks]
    return np.stack([scale.reshape(*scale.shape[:2], -1) for scale in scales], axis=1)


def one_state(rows: Sequence[tuple[PrefixState, int]]) -> PrefixState | None:
    """The state whose rows, all of them and in order, are asked for: then nothing needs copying."""
    state = rows[0][0]
    same = len(rows) == len(state.labels) and all(s is state and row == i for i, (s, row) in enumerate(rows))
    return state if same else None
