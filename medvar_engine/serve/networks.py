"""`Networks`: shares one backend among many jobs, each of which uses it like its own `Backend`.

A prefix is identified by its content, labels and scale features: a job that sends them again gets the same prefix,
from the cache or computed again, and no job can refer to a prefix of another job.

Every use of a network is a separate turn, so that other jobs can run in between during a long job.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np

from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.generate.prefix_cache import PrefixCache, PrefixKey, Row
from medvar_engine.remote.scale_input import extended, gather_inputs
from medvar_engine.serve.fair_lock import FairLock
from medvar_engine.serve.jobs import Job
from medvar_engine.types import FloatArray, IntArray


class Networks:
    """The networks of ``backend``, with prefixes cached in ``cache``. Use them only while ``turn`` is held."""

    def __init__(self, backend: Backend, cache: PrefixCache) -> None:
        self.backend = backend
        self.turn = FairLock()
        self._cache = cache
        self._cached = threading.Lock()

    def scale(
        self, labels: IntArray, scale_features: Sequence[FloatArray], k: int, job: Job, *, guide: bool
    ) -> tuple[FloatArray, list[Row]]:
        """Logits of scale k, and the prefixes including it. ``scale_features`` are the input of scales 1…k or more."""
        before = self.prefixes(labels, scale_features, k, job, guide=guide)
        with self.turn.held(job):
            if k:
                own = np.ascontiguousarray(scale_features[k - 1])
                logits, state = self.backend.step(self.backend.gather(before), own)
            else:
                logits, state = self.backend.step(self.backend.start(labels, guide=guide), None)
        if k + 1 < len(self.backend.info.schedule):  # nothing follows the finest scale
            with self._cached:
                self._cache.put(_keys(labels, scale_features, k + 1, guide=guide), state)
        return logits, [(state, row) for row in range(len(labels))]

    def prefixes(
        self, labels: IntArray, scale_features: Sequence[FloatArray], depth: int, job: Job, *, guide: bool
    ) -> list[Row]:
        """The prefixes of ``depth`` scales, from the cache or computed again."""
        if not depth:
            return []
        keys = _keys(labels, scale_features, depth, guide=guide)
        with self._cached:
            known = dict(zip(keys, self._cache.get(keys), strict=True))
        if lost := [row for row, key in enumerate(keys) if known[key] is None and keys.index(key) == row]:
            _, rows = self.scale(labels[lost], [scale[lost] for scale in scale_features], depth - 1, job, guide=guide)
            known |= {keys[row]: found for row, found in zip(lost, rows, strict=True)}
        return [found for key in keys if (found := known[key])]


class JobBackend:
    """A `Backend` for one job that uses the shared `Networks`.

    A chunk of a prefix state is the input of its scale, see `scale_input`; it has no tokens at scale 0.
    """

    def __init__(self, networks: Networks, job: Job) -> None:
        self._networks, self._job = networks, job
        self._backend = networks.backend
        self.info = networks.backend.info

    @property
    def codebook(self) -> FloatArray | None:
        """See `Backend`."""
        return self._backend.codebook

    def start(self, labels: IntArray, *, guide: bool = False) -> PrefixState:
        """See `Backend`."""
        return PrefixState(labels, guide=guide)

    def step(self, state: PrefixState, scale_features: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        """See `Backend`."""
        longer = extended(state, scale_features, self.info.feature_channels)
        logits, _ = self._networks.scale(state.labels, longer.chunks[1:], state.depth, self._job, guide=state.guide)
        return logits, longer

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """See `Backend`."""
        return gather_inputs(rows)

    def summary(self, state: PrefixState) -> FloatArray:
        """See `Backend`."""
        rows = self._networks.prefixes(state.labels, state.chunks[1:], state.depth, self._job, guide=state.guide)
        with self._networks.turn.held(self._job):
            return self._backend.summary(self._backend.gather(rows))

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """See `Backend`."""
        with self._networks.turn.held(self._job):
            return self._backend.accumulate(latent, tokens, k)

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """See `Backend`."""
        with self._networks.turn.held(self._job):
            return self._backend.encode(images)

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """See `Backend`."""
        with self._networks.turn.held(self._job):
            return self._backend.decode(latent, preview=preview)


def _keys(labels: IntArray, scale_features: Sequence[FloatArray], depth: int, *, guide: bool) -> list[PrefixKey]:
    """Cache keys of the prefixes of ``depth`` scales, with the features of scales 1…depth-1 as input."""
    hashes = [hashlib.sha256() for _ in labels]
    for scale in scale_features[: depth - 1]:
        for own, row in zip(hashes, scale, strict=True):
            own.update(row.tobytes())
    network = "guide" if guide else ""
    rows = zip(labels.tolist(), hashes, strict=True)
    return [PrefixKey(network, tuple(label), depth, own.digest()) for label, own in rows]
