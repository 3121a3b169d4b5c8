"""`Prefixes`: extends generations by token maps, and computes the logits of the next scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from functools import lru_cache

import numpy as np

from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.backends.release_memory import give_back
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.prefix_cache import PrefixCache, PrefixKey
from medvar_engine.generate.sampling import guide, guide_away
from medvar_engine.generate.slice_before import distance_penalty
from medvar_engine.generate.validation import check_logits
from medvar_engine.request import Request
from medvar_engine.tokens.pyramid import TokenPyramid
from medvar_engine.types import FloatArray, IntArray

_SLICES_BEFORE = 32  # latents of slices before that are kept; 64 KiB each at 128×128
_LOGITS = 2**20  # logits of the finest scale that are computed together


class Prefixes:
    """Runs a backend on generations through a cache, so that nothing is computed twice.

    A *row* is one image under one label: of B images, row i is image i under its condition, row B + i the unconditional
    one for guidance, and row 2B + i, for a slice of a stack, that of the step next to its position. Rows with the same
    label and tokens are computed once: candidates that continue one prefix cost one row until they differ.
    """

    def __init__(self, backend: Backend, cache: PrefixCache) -> None:
        self.backend = backend
        self.cache = cache
        self._finished_latent = lru_cache(_SLICES_BEFORE)(self._latent_of)  # the same for all scales of a slice

    def start(self, requests: Sequence[Request]) -> Generation:
        """Images without any scale."""
        info = self.backend.info
        return Generation(
            tuple(requests), TokenPyramid.empty(info.schedule, len(requests)), (), (), None, info.bundle_id
        )

    def grow(self, generation: Generation, tokens: IntArray, bits: FloatArray | None = None) -> Generation:
        """The generation with one more scale: tokens ``(B, L_k)`` and, if known, their entropy ``(B, side, side)``."""
        before = generation.latents[-1] if generation.latents else None
        latent, scale_features = self.backend.accumulate(before, tokens, generation.depth)
        # Entropy is stored per scale: if that of a coarser scale is unknown (encoded images), it is dropped.
        known = len(generation.entropy) == generation.depth
        return changed(
            generation,
            pyramid=generation.pyramid.append(tokens),
            entropy=(*generation.entropy, bits) if known and bits is not None else generation.entropy,
            latents=(*generation.latents, latent),
            scale_features=scale_features,
        )

    def replay(self, requests: Sequence[Request], pyramid: TokenPyramid) -> Iterator[Generation]:
        """The generations of ``pyramid`` before each scale, and after the last one."""
        generation = self.start(requests)
        yield generation
        for k in range(pyramid.depth):
            generation = self.grow(generation, pyramid.tokens(k))
            yield generation

    def guided_logits(self, generation: Generation) -> Iterator[FloatArray]:
        """Logits ``(L_k, V)`` of the next scale of each image, under its own condition and guidance.

        They are computed one after the other, on demand: all together can take more memory than the network.
        """
        guided = any(request.sampling.guidance > 0 for request in generation.requests)
        parts = self._parts(generation, guided)
        if len(parts) > 1:
            give_back()  # once only: doing this before every part makes a batch a tenth slower
        for part in parts:
            yield from self._guided(part, guided)

    def _guided(self, generation: Generation, guided: bool) -> Iterator[FloatArray]:
        scales, batch = len(self.backend.info.schedule), len(generation.requests)
        logits = self._logits(generation, guided)
        combine = guide_away if self.backend.info.has_guide else guide
        for i, request in enumerate(generation.requests):
            strength = request.sampling.at(generation.depth, scales).guidance
            own = combine(logits[i], logits[batch + i], strength) if strength > 0 else logits[i]
            yield check_logits(self._near_slice_before(generation, i, own))

    def _near_slice_before(self, generation: Generation, image: int, logits: FloatArray) -> FloatArray:
        """Guided logits ``(L_k, V)`` of one image, with those tokens less probable that differ from the slice before.

        Unchanged for single images, and for the first slice of a stack.
        """
        place, backend = generation.requests[image].stack, self.backend
        if place is None or not place.before:
            return logits
        if backend.codebook is None:
            raise MedvarError("This model has no codebook, so it cannot draw stacks. Export it with `medvar export`.")
        latent = generation.latents[-1][image] if generation.latents else backend.info.no_latent(1)[0]
        before: FloatArray = self._finished_latent(place.before)
        return logits - distance_penalty(backend.info, backend.codebook, generation.depth, place.step, before, latent)

    def _latent_of(self, tokens: tuple[int, ...]) -> FloatArray:
        """The latent ``(C, H, W)`` of all tokens of one image."""
        pyramid = TokenPyramid.from_sequence(self.backend.info.schedule, np.array([tokens], dtype=np.int64))
        *_, generation = self.replay([Request()], pyramid)
        latent: FloatArray = generation.latents[-1][0]
        return latent

    def _parts(self, generation: Generation, guided: bool) -> list[Generation]:
        """The images in parts, which pass through the network one after the other.

        Only at the finest scale: its logits, keys and values are the largest, and no later scale needs those of all
        images together. Images with equal rows, such as candidates, stay together.
        """
        info, images = self.backend.info, len(generation.requests)
        if generation.depth + 1 < len(info.schedule):
            return [generation]
        labels, wanted = self._labels(generation), self._wanted(generation, guided)
        distinct = set(self._keys(generation, labels, wanted, generation.depth + 1))
        parts = -(-len(distinct) * info.schedule.token_counts[-1] * info.vocabulary // _LOGITS)
        return [generation.select(part.tolist()) for part in np.array_split(np.arange(images), min(images, parts))]

    def logits(self, generation: Generation) -> list[FloatArray]:
        """Logits ``(L_k, V)`` of the next scale of each image under its own condition."""
        logits = self._logits(generation, guided=False)
        return [check_logits(logits[i]) for i in range(len(generation.requests))]

    def summary(self, generation: Generation) -> FloatArray:
        """Averages of keys and values of all scales so far, without a condition; see `Backend.summary`."""
        labels = np.array([self.backend.info.labels.unconditional] * len(generation.requests), dtype=np.int64)
        _, state = self._run(generation, labels, range(len(labels)), generation.depth - 1)
        return self.backend.summary(state)

    def _logits(self, generation: Generation, guided: bool) -> dict[int, FloatArray]:
        """Logits ``(L_k, V)`` of the next scale by row, under conditions and, if ``guided``, unconditional.

        Equal rows share one array.
        """
        labels = self._labels(generation)
        found: dict[int, FloatArray] = {}
        states = []
        for wanted in self._by_network(generation, self._wanted(generation, guided)):
            keys = self._keys(generation, labels, wanted, generation.depth + 1)
            first, places = _distinct(keys)
            logits, state = self._run(generation, labels, [wanted[i] for i in first], generation.depth)
            states.append(([keys[i] for i in first], state))
            found |= {row: logits[place] for row, place in zip(wanted, places, strict=True)}
        if generation.depth + 1 < len(self.backend.info.schedule):  # nothing follows the finest scale
            self.cache.put_together(states)
        return found | self._between_steps(generation, found)

    def _between_steps(self, generation: Generation, logits: dict[int, FloatArray]) -> dict[int, FloatArray]:
        """Logits of slices of a stack, which change linearly from the middle of one step of the position to the next.

        Otherwise all slices of one step would show the same place, and the next slice another one.
        """
        shares = [np.float32(self._neighbour(request)[1]) for request in generation.requests]
        first = 2 * len(shares)
        return {i: logits[i] + share * (logits[first + i] - logits[i]) for i, share in enumerate(shares) if share}

    def _neighbour(self, request: Request) -> tuple[tuple[int, ...], float]:
        """The label of the step next to the position of a slice of a stack, and its share, which is 0 for others."""
        space = self.backend.info.labels
        return space.neighbouring_step(request.condition) if request.stack else (space.unconditional, 0.0)

    def _by_network(self, generation: Generation, rows: Sequence[int]) -> list[list[int]]:
        """Rows that pass through a network together: all, or those of the guide apart."""
        parts = [[row for row in rows if self._of_guide(generation, row) == apart] for apart in (False, True)]
        return [part for part in parts if part]

    def _of_guide(self, generation: Generation, row: int) -> bool:
        """Whether a row belongs to the guide: a model that has one uses it for all unconditional rows of guidance."""
        return self.backend.info.has_guide and row // len(generation.requests) == 1

    def _run(
        self, generation: Generation, labels: IntArray, rows: Sequence[int], k: int
    ) -> tuple[FloatArray, PrefixState]:
        """Scale k of some rows: its logits, and the extended prefix."""
        state, scale_features = self._state(generation, labels, rows, k), self._scale_features(generation, k)
        return self.backend.step(
            state, None if scale_features is None else scale_features[[row % len(scale_features) for row in rows]]
        )

    def _state(self, generation: Generation, labels: IntArray, rows: Sequence[int], depth: int) -> PrefixState:
        """The prefix of ``depth`` scales of some rows: from the cache, or computed again from the tokens."""
        if not depth:
            return self.backend.start(labels[list(rows)], guide=self._of_guide(generation, rows[0]))
        keys = self._keys(generation, labels, rows, depth)
        known = self.cache.get(keys)
        lost = {key: row for row, key, found in zip(rows, keys, known, strict=True) if found is None}
        if not lost:
            return self.backend.gather([found for found in known if found is not None])
        _, state = self._run(generation, labels, list(lost.values()), depth - 1)
        self.cache.put(list(lost), state)
        again = {key: (state, place) for place, key in enumerate(lost)}
        return self.backend.gather([found or again[key] for key, found in zip(keys, known, strict=True)])

    def _scale_features(self, generation: Generation, k: int) -> FloatArray | None:
        """Input of scale k ``(B, L_k, C)``, from the tokens of scale k-1 and the latent before it."""
        if k == 0:
            return None
        if k == generation.depth:
            return generation.scale_features
        before = generation.latents[k - 2] if k > 1 else None
        return self.backend.accumulate(before, generation.pyramid.tokens(k - 1), k - 1)[1]

    def _labels(self, generation: Generation) -> IntArray:
        space, requests = self.backend.info.labels, generation.requests
        own = [space.encode(request.condition) for request in requests]
        neighbours = [self._neighbour(request)[0] for request in requests]
        return np.array(own + [space.unconditional] * len(own) + neighbours, dtype=np.int64)

    def _wanted(self, generation: Generation, guided: bool) -> list[int]:
        """The rows that the images need; see the class."""
        requests, images = generation.requests, len(generation.requests)
        unconditional = [images + i for i in range(images) if guided and requests[i].sampling.guidance > 0]
        return [
            *range(images),
            *unconditional,
            *(2 * images + i for i in range(images) if self._neighbour(requests[i])[1]),
        ]

    def _keys(self, generation: Generation, labels: IntArray, rows: Sequence[int], depth: int) -> list[PrefixKey]:
        """Names of the prefix states of ``depth`` scales of some rows.

        Scale k's keys and values follow from scales 0…k-1.
        """
        info = self.backend.info
        network = f"{info.bundle_id} {info.precision} {info.provider}"
        contents = [row.tobytes() for row in generation.pyramid.prefix(depth - 1).sequence]
        return [
            PrefixKey(
                f"{network} guide" if self._of_guide(generation, row) else network,
                tuple(labels[row].tolist()),
                depth,
                contents[row % len(contents)],
            )
            for row in rows
        ]


def _distinct(keys: Sequence[PrefixKey]) -> tuple[list[int], list[int]]:
    """Index of the first occurrence of each distinct key, and for every key its number among these."""
    first: dict[PrefixKey, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    place = {key: n for n, key in enumerate(first)}
    return list(first.values()), [place[key] for key in keys]
