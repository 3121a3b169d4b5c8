"""The `Backend` protocol: runs the networks of one bundle, with numpy arrays as input and output."""

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
    """The model that a backend runs, and the device that it really uses."""

    provider: str  # e.g. "ONNX Runtime, CPUExecutionProvider" or "torch, cuda"
    precision: str  # type of the arithmetic and the weights, e.g. "float32"
    schedule: ScaleSchedule
    labels: LabelSpace
    vocabulary: int  # V
    latent_channels: int  # channels of a latent
    feature_channels: int  # C of scale features
    image_size: int  # pixels per side
    image_channels: int
    bundle_id: (
        str  # `Bundle.bundle_id`, or the sha256 of the weights of a model that was not exported; stored in traces
    )
    weights: str = ""  # sha256 of the exported weights, if known; traces may store it instead
    light_previews: bool = False  # whether previews come from a light decoder
    structures: Structures = ()  # structures of masks in the order of their values from 1 up; empty without masks
    mask_scales: tuple[int, ...] = ()  # the scales that encode masks; the others encode the image
    has_guide: bool = False  # whether guidance compares with a weaker transformer, see `Backend.start`

    @property
    def runs_on(self) -> str:
        """The device and the precision for people, e.g. "ONNX Runtime, CPU, float32"."""
        return f"{self.provider.replace('ExecutionProvider', '')}, {self.precision}"

    @property
    def channels(self) -> int:
        """Channels that are encoded and decoded: those of the image, and one more for a mask."""
        return self.image_channels + (1 if self.structures else 0)

    def no_latent(self, rows: int) -> FloatArray:
        """The latent before scale 0: zeros ``(rows, C, H, W)``."""
        side = self.schedule.latent_side
        return np.zeros((rows, self.latent_channels, side, side), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class PrefixState:
    """Keys and values of the scales run so far. It is opaque outside its backend, and never modified."""

    labels: IntArray  # (B, F)
    chunks: tuple[Any, ...] = ()  # one array per scale, so that longer prefixes share those of shorter ones
    guide: bool = False  # whether they are those of the guide

    @property
    def depth(self) -> int:
        """Number of scales run so far."""
        return len(self.chunks)

    def longer(self, chunk: Any) -> PrefixState:
        """This prefix extended by one scale with the keys and values ``chunk``."""
        return PrefixState(self.labels, (*self.chunks, chunk), self.guide)


class Backend(Protocol):
    """Runs the networks of one bundle. A prefix state stays on the device and is opaque outside."""

    info: BackendInfo

    @property
    def codebook(self) -> FloatArray | None:
        """The code of every token, ``(V, C)``, or ``(K, V, C)`` with one codebook per scale; None if unknown."""

    def start(self, labels: IntArray, *, guide: bool = False) -> PrefixState:
        """The empty prefix of labels ``(B, F)``. For guidance, the caller passes unconditional rows, too.

        With ``guide``, the prefix is continued by the guide, a weaker transformer of the same tokens, from which
        guidance moves away (arXiv 2406.02507). Only for a model that `BackendInfo.has_guide`.
        """

    def step(self, state: PrefixState, scale_features: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        """Run one scale; returns the logits ``(B, L_k, V)`` and the extended prefix.

        ``maps`` are the scale features ``(B, L_k, C)``, or None for scale 0. ``state`` is not modified, so a prefix can
        be continued several times, as resampling and candidates require.
        """

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """A prefix made of rows of other prefixes of the same depth, given as (prefix, row)."""

    def summary(self, state: PrefixState) -> FloatArray:
        """Keys and values of a prefix, averaged over the tokens of each scale: ``(B, scales, depth, 2·width)``."""

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """Add token map k ``(B, L_k)`` to the latent ``(B, C, H, W)``; returns the sum and the next scale features.

        The scale features ``(B, L_{k+1}, C)`` are None after the finest scale.
        """

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """Encode images ``(B, image channels, H, W)`` in [-1, 1] as K token maps ``(B, L_k)``.

        A model with masks takes one more channel: the number of the structure at each pixel, 0 for none.
        """

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """Decode a latent ``(B, C, H, W)`` to images ``(B, image channels, H, W)`` in [-1, 1].

        A model with masks returns one more channel, as in `encode`. With ``preview``, a lighter decoder is used if the
        bundle has one.
        """


def gather_rows(rows: Sequence[tuple[PrefixState, int]], gather: Callable[[list[tuple[Any, int]]], Any]) -> PrefixState:
    """Implements `Backend.gather`; ``gather`` makes one chunk from rows of chunks of the same scale."""
    if whole := one_state(rows):
        return whole
    chunks = tuple(gather([(state.chunks[k], row) for state, row in rows]) for k in range(rows[0][0].depth))
    labels = np.stack([state.labels[row] for state, row in rows])
    return PrefixState(labels, chunks, rows[0][0].guide)


def average_tokens(state: PrefixState, average: Callable[[Any], FloatArray]) -> FloatArray:
    """Implements `Backend.summary`.

    ``average`` returns the mean of a chunk over tokens, ``(depth, 2, B, heads, d)``.
    """
    scales = [np.moveaxis(average(chunk), 2, 0) for chunk in state.chunks]
    return np.stack([scale.reshape(*scale.shape[:2], -1) for scale in scales], axis=1)


def one_state(rows: Sequence[tuple[PrefixState, int]]) -> PrefixState | None:
    """The state that ``rows`` consist of completely and in order, so that no copy is needed; None otherwise."""
    state = rows[0][0]
    same = len(rows) == len(state.labels) and all(s is state and row == i for i, (s, row) in enumerate(rows))
    return state if same else None
