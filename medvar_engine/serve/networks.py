"""`Networks`: one backend for many jobs at the same time, each of which uses it like a `Backend` of its own.

What a prefix was made of, its labels and input features, is its name: a job that comes with them again gets the same
prefix, remembered or computed anew, and nobody can name another's.

Every use of a network is a turn by itself, however many of them a job needs: so a long one, like a forgotten prefix or
a long line of edits, lets others in between. Jobs that wait for the same network at the same scale share a turn. Each
row gets what it would get alone.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.backends.scale_input import extended, gather_inputs, parted
from medvar_engine.prefix_cache import Key, PrefixCache, Row
from medvar_engine.serve.jobs import Job
from medvar_engine.serve.turns import Run, Turns

Asked = TypeVar("Asked")
Given = TypeVar("Given")


class _Step(NamedTuple):
    """Rows that want their next scale."""

    labels: IntArray  # (B, F)
    features: FloatArray | None  # input of scale k, see `scale_input`; None at scale 0
    before: list[Row]  # their prefixes; none at scale 0
    after: list[Key]  # names of their longer prefixes
    shapes: tuple[tuple[int, ...], ...]  # of a row of every scale's input: such as are alike can share a run


class Networks:
    """The networks of ``backend``, whose prefixes are remembered in ``cache``.

    ``joined`` is the most tokens of several jobs that go through a network together. 1 keeps them apart.
    """

    def __init__(self, backend: Backend, cache: PrefixCache, joined: int) -> None:
        self.backend = backend
        self._cache = cache
        self._cached = threading.Lock()
        self._turns = Turns(joined)

    def ask(self, run: Run[Asked, Given], scale: int, asked: Asked, tokens: int, job: Job) -> Given:
        """See `Turns.ask`."""
        return self._turns.ask(run, scale, asked, tokens, job)

    def scale(self, labels: IntArray, features: Sequence[FloatArray], k: int, job: Job) -> tuple[FloatArray, list[Row]]:
        """Logits of scale k, and the prefixes with it. ``features`` are the input of scales 1…k, and perhaps more."""
        before = self.prefixes(labels, features, k, job)
        shapes = tuple(scale.shape[1:] for scale in features[:k])
        asked = _Step(labels, features[k - 1] if k else None, before, _keys(labels, features, k + 1), shapes)
        return self.ask(self._steps, k, asked, len(labels) * self.backend.info.schedule.token_counts[k], job)

    def prefixes(self, labels: IntArray, features: Sequence[FloatArray], depth: int, job: Job) -> list[Row]:
        """The prefixes of ``depth`` scales: remembered, or computed again."""
        if not depth:
            return []
        keys = _keys(labels, features, depth)
        with self._cached:
            known = dict(zip(keys, self._cache.get(keys), strict=True))
        if lost := [row for row, key in enumerate(keys) if known[key] is None and keys.index(key) == row]:
            _, rows = self.scale(labels[lost], [scale[lost] for scale in features], depth - 1, job)
            known |= {keys[row]: found for row, found in zip(lost, rows, strict=True)}
        return [found for key in keys if (found := known[key])]

    def summaries(self, _: int, asked: Sequence[list[Row]]) -> list[FloatArray]:
        """See `Backend.summary`."""
        state = self.backend.gather([row for rows in asked for row in rows])
        return _apart(self.backend.summary(state), list(map(len, asked)))

    def accumulated(
        self, k: int, asked: Sequence[tuple[FloatArray, IntArray]]
    ) -> list[tuple[FloatArray, FloatArray | None]]:
        """See `Backend.accumulate`."""
        latents, tokens = zip(*asked, strict=True)
        counts = list(map(len, tokens))
        latent, features = self.backend.accumulate(_together(latents), _together(tokens), k)
        ahead = [None] * len(asked) if features is None else _apart(features, counts)
        return list(zip(_apart(latent, counts), ahead, strict=True))

    def encoded(self, _: int, asked: Sequence[FloatArray]) -> list[tuple[IntArray, ...]]:
        """See `Backend.encode`."""
        counts = list(map(len, asked))
        return list(zip(*(_apart(scale, counts) for scale in self.backend.encode(_together(asked))), strict=True))

    def decoded(self, preview: int, asked: Sequence[FloatArray]) -> list[FloatArray]:
        """See `Backend.decode`."""
        return _apart(self.backend.decode(_together(asked), preview=bool(preview)), list(map(len, asked)))

    def _steps(self, k: int, asked: Sequence[_Step]) -> list[tuple[FloatArray, list[Row]]]:
        given: dict[int, tuple[FloatArray, list[Row]]] = {}
        for shapes in dict.fromkeys(own.shapes for own in asked):
            alike = [own for own in asked if own.shapes == shapes]
            given |= dict(zip(map(id, alike), self._step(k, alike), strict=True))
        return [given[id(own)] for own in asked]

    def _step(self, k: int, asked: Sequence[_Step]) -> list[tuple[FloatArray, list[Row]]]:
        labels, counts = _together([own.labels for own in asked]), [len(own.labels) for own in asked]
        before = [row for own in asked for row in own.before]
        if k:
            features = _together([own.features for own in asked if own.features is not None])
            maps, positions = parted(features, self.backend.info.latent_channels)
            logits, state = self.backend.step(self.backend.gather(before), maps, positions)
        else:
            logits, state = self.backend.step(self.backend.start(labels), None)
        if k + 1 < len(self.backend.info.schedule):  # nothing follows the finest scale
            with self._cached:
                self._cache.put([key for own in asked for key in own.after], state)
        ends = list(accumulate(counts, initial=0))
        rows = [[(state, row) for row in range(first, end)] for first, end in pairwise(ends)]
        return list(zip(_apart(logits, counts), rows, strict=True))


class JobBackend:
    """A `Backend` for one job, by way of the `Networks` that all jobs share.

    A chunk of a prefix state is the input of its scale, see `scale_input`, of no tokens at scale 0.
    """

    def __init__(self, networks: Networks, job: Job) -> None:
        self._networks, self._job = networks, job
        self.info = networks.backend.info

    @property
    def codebook(self) -> FloatArray | None:
        """See `Backend`."""
        return self._networks.backend.codebook

    def start(self, labels: IntArray) -> PrefixState:
        """See `Backend`."""
        return PrefixState(labels)

    def step(
        self, state: PrefixState, maps: FloatArray | None, positions: IntArray | None = None
    ) -> tuple[FloatArray, PrefixState]:
        """See `Backend`."""
        longer = extended(state, maps, positions, self.info.latent_channels)
        logits, _ = self._networks.scale(state.labels, longer.chunks[1:], state.depth, self._job)
        return logits, longer

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """See `Backend`."""
        return gather_inputs(rows)

    def summary(self, state: PrefixState) -> FloatArray:
        """See `Backend`."""
        rows = self._networks.prefixes(state.labels, state.chunks[1:], state.depth, self._job)
        return self._networks.ask(self._networks.summaries, state.depth, rows, self._tokens(len(rows)), self._job)

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """See `Backend`."""
        if latent is None:
            latent = self.info.no_latent(len(tokens))
        return self._networks.ask(self._networks.accumulated, k, (latent, tokens), tokens.size, self._job)

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """See `Backend`."""
        return self._networks.ask(self._networks.encoded, 0, images, self._tokens(len(images)), self._job)

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """See `Backend`."""
        return self._networks.ask(self._networks.decoded, int(preview), latent, self._tokens(len(latent)), self._job)

    def _tokens(self, images: int) -> int:
        """Of so many whole images, whose networks work on the finest scale."""
        return images * self.info.schedule.token_counts[-1]


def _keys(labels: IntArray, features: Sequence[FloatArray], depth: int) -> list[Key]:
    """Names of the prefixes of ``depth`` scales, whose input are features 1…depth-1."""
    hashes = [hashlib.sha256() for _ in labels]
    for scale in features[: depth - 1]:
        for own, row in zip(hashes, scale, strict=True):
            own.update(str(row.shape).encode())  # the same bytes may be a whole scale or a part of one
            own.update(row.tobytes())
    return [Key("", tuple(label), depth, own.digest()) for label, own in zip(labels.tolist(), hashes, strict=True)]


def _together(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)


def _apart(rows: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    return [rows] if len(counts) == 1 else np.split(rows, list(accumulate(counts))[:-1])
