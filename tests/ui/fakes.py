"""A model of numpy only, for tests of the plugin: deterministic, quick, and as slow as a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medvar_engine.backends.base import BackendInfo, PrefixState
from medvar_engine.bundle.read import Bundle, SliceType
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Sampling
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray, IntArray
from napari_medvar.session.generation_session import OpenedBundle

SCHEDULE = ScaleSchedule((1, 2, 3, 4, 6, 8))
LABELS = LabelSpace(modality=("CT", "MR"), region=("abdomen", "brain", "chest"), plane=("axial", "coronal"))
VOCABULARY, CHANNELS, SIZE = 32, 3, 64


def make_bundle(path: Path = Path("fake"), *, schedule: ScaleSchedule = SCHEDULE) -> Bundle:
    """The manifest of the fake model: CT in HU at 0.8 mm, MR in arbitrary units at 1 mm."""
    return Bundle(
        path=path,
        name="fake",
        labels=LABELS,
        schedule=schedule,
        vocabulary=VOCABULARY,
        latent_channels=CHANNELS,
        feature_channels=CHANNELS,
        image_size=SIZE,
        image_channels=1,
        transformer={"depth": 1, "heads": 1, "head_dim": 1},
        precision="float32",
        sampling=Sampling(),
        slice_types=(
            SliceType(Condition("CT", "abdomen", "axial"), 900, 30, 0.8, -160.0, 240.0, "HU"),
            SliceType(Condition("MR", "brain", "axial"), 500, 20, 1.0, 0.0, 1.0, "arbitrary"),
        ),
        licence="none",
        attributions=(),
        training_data="Nothing: a fake for tests.",
        parity={},
        sha256={},
    )


class FakeBackend:
    """Logits are a fixed random function of labels and features; images are smooth blobs.

    ``before_step`` is called with k before each scale, in the engine's thread: sleep or wait there.
    """

    def __init__(self, schedule: ScaleSchedule = SCHEDULE, before_step: Callable[[int], None] = lambda k: None) -> None:
        random = np.random.default_rng(7)
        self.codebook = random.normal(size=(VOCABULARY, CHANNELS)).astype(np.float32)
        self._weights = random.normal(size=(CHANNELS, VOCABULARY)).astype(np.float32)
        self._by_label = random.normal(size=(16, VOCABULARY)).astype(np.float32)
        self.before_step = before_step
        self.steps: list[int] = []  # the scales run, in order
        self.decoded = 0  # how many images were decoded
        self.info = BackendInfo(
            "Fake, CPUExecutionProvider", "float32", schedule, LABELS, VOCABULARY, CHANNELS, CHANNELS, SIZE, 1, "fake"
        )

    def start(self, labels: IntArray, *, guide: bool = False) -> PrefixState:
        return PrefixState(labels)

    def step(self, state: PrefixState, scale_features: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        k = state.depth
        self.before_step(k)
        self.steps.append(k)
        if scale_features is None:
            scale_features = np.zeros(
                (len(state.labels), self.info.schedule.token_counts[0], CHANNELS), dtype=np.float32
            )
        logits = scale_features @ self._weights + self._by_label[state.labels.sum(axis=1) % 16][:, None, :]
        return logits, PrefixState(state.labels, (*state.chunks, np.zeros(len(state.labels))))

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        labels = np.stack([state.labels[row] for state, row in rows])
        return PrefixState(labels, tuple(np.zeros(len(rows)) for _ in range(rows[0][0].depth)))

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        schedule, full = self.info.schedule, self.info.schedule.latent_side
        maps = self.codebook[tokens].reshape(len(tokens), schedule[k], schedule[k], CHANNELS)
        index = np.arange(full) * schedule[k] // full
        lifted = np.moveaxis(maps[:, index][:, :, index], -1, 1) * np.float32(0.8**k)
        total = lifted if latent is None else latent + lifted
        if k + 1 == len(schedule):
            return total, None
        index = np.arange(schedule[k + 1]) * full // schedule[k + 1]
        return total, np.moveaxis(total[:, :, index][:, :, :, index], 1, -1).reshape(len(tokens), -1, CHANNELS)

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        return tuple(np.zeros((len(images), count), dtype=np.int64) for count in self.info.schedule.token_counts)

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        self.decoded += len(latent)
        places = (np.arange(SIZE) + 0.5) / SIZE * latent.shape[-1] - 0.5
        weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(latent.shape[-1])))
        weights /= weights.sum(axis=1, keepdims=True)
        images = np.einsum("yi,bij,xj->byx", weights, latent.mean(axis=1), weights)[:, None]
        return np.tanh(images).astype(np.float32)


class FakeModels:
    """How the tests' sessions open bundles: "fake" is there, everything else is not."""

    def __init__(self, schedule: ScaleSchedule = SCHEDULE) -> None:
        self.backend = FakeBackend(schedule)

    def __call__(self, name: str | Path | None, bundle_id: str | None = None) -> OpenedBundle:
        if name not in (None, "fake"):
            raise MedvarError(f"{name} is not a bundle: it has no bundle.json.")
        return OpenedBundle(make_bundle(schedule=self.backend.info.schedule), Generator(self.backend))


class Gate:
    """Holds the engine before a scale until the test opens it."""

    def __init__(self, at: int) -> None:
        self._at, self._open, self.reached = at, threading.Event(), threading.Event()

    def __call__(self, k: int) -> None:
        if k == self._at:
            self.reached.set()
            self._open.wait(timeout=20)

    def open(self) -> None:
        self._open.set()
