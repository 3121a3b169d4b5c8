"""`Generator`: the coarse-to-fine loop over a `Backend`, and everything that starts from an earlier image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace as changed

import numpy as np

from medvar_engine.arrays import BoolArray, FloatArray, IntArray
from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generation import Generation, Held
from medvar_engine.prefix_cache import Key, PrefixCache
from medvar_engine.pyramid import TokenPyramid, graft, mask_at_scale, replace
from medvar_engine.sampling import Sampling, draw, entropy, guide, log_softmax, ramp
from medvar_engine.trace import Edit, Encoded, Graft, Replace, Request, Resample, Trace


class Generator:
    """Makes images scale by scale. Holds a backend and a prefix cache, no other state.

    >>> generator = Generator(OnnxBackend(read_bundle(find_bundle())))  # doctest: +SKIP
    >>> generation = generator.start([Request(Condition(region="brain"), seed=7)])  # doctest: +SKIP
    >>> for generation in generator.run(generation):  # doctest: +SKIP
    ...     show(generator.preview(generation, generation.depth - 1))
    """

    def __init__(self, backend: Backend, cache: PrefixCache | None = None) -> None:
        self.backend = backend
        self.cache = cache or PrefixCache()

    # -- making images ------------------------------------------------------------------------------------------

    def start(self, requests: Sequence[Request]) -> Generation:
        """Images without any scale yet. Raises `MedvarError` for a condition that the model does not know."""
        self._check_requests(requests)
        pyramid = TokenPyramid.empty(self.backend.info.schedule, len(requests))
        return Generation(tuple(requests), pyramid, (), (), None, self.backend.info.model)

    def step(self, generation: Generation) -> Generation:
        """One more scale."""
        if generation.complete:
            raise MedvarError("This generation is complete; resample it from a scale to go on.")
        k, scales, batch = generation.depth, len(self.backend.info.schedule), len(generation.requests)
        guided = any(request.sampling.guidance > 0 for request in generation.requests)
        logits = self._logits(generation, guided)
        tokens = np.empty((batch, logits.shape[1]), dtype=np.int64)
        bits = np.empty(tokens.shape, dtype=np.float32)
        for i, request in enumerate(generation.requests):
            strength = ramp(request.sampling.guidance, k, scales)
            own = guide(logits[i], logits[batch + i], strength) if strength > 0 else logits[i]
            tokens[i], bits[i] = draw(own, request.sampling, request.seed, k), entropy(own)
            if generation.held and (held := generation.held[i][k]) is not None:
                tokens[i] = np.where(held.keep, held.tokens, tokens[i])
        side = self.backend.info.schedule[k]
        return self._grown(generation, tokens, bits.reshape(batch, side, side))

    def run(
        self,
        generation: Generation,
        *,
        until: int | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[Generation]:
        """Yields the generation after each scale, up to and including scale ``until`` (the finest by default).

        ``should_stop`` is asked before each scale.
        """
        last = self._scale(len(self.backend.info.schedule) - 1 if until is None else until)
        while generation.depth <= last and not (should_stop and should_stop()):
            generation = self.step(generation)
            yield generation

    def finish(self, generation: Generation) -> Generation:
        """The generation with all its scales."""
        while not generation.complete:
            generation = self.step(generation)
        return generation

    # -- from an earlier image ----------------------------------------------------------------------------------

    def restore(self, traces: Sequence[Trace]) -> Generation:
        """Traces of the same depth as a generation again, e.g. to show one that was read from a file."""
        for trace in traces:
            self._check_model(trace)
        pyramid = TokenPyramid.stack(trace.pyramid for trace in traces)
        depths = {len(trace.entropy) for trace in traces}
        known = (
            tuple(np.stack(maps) for maps in zip(*(t.entropy for t in traces), strict=True)) if len(depths) == 1 else ()
        )
        held = tuple(map(self._still_held, traces))
        return self._rebuilt(
            tuple(trace.request for trace in traces),
            pyramid,
            known,
            held=held if any(map(any, held)) else (),
            edits=tuple(trace.edit for trace in traces),
            parents=tuple(trace.parent for trace in traces),
        )

    def resample(
        self,
        trace: Trace,
        from_scale: int,
        *,
        seed: int | None = None,
        condition: Condition | None = None,
        sampling: Sampling | None = None,
        mask: BoolArray | None = None,
    ) -> Generation:
        """An image that shares scales ``0…from_scale-1`` with ``trace``; the rest is still to be drawn.

        With a ``mask`` on the image grid ``(H, W)``, tokens that it does not touch stay as they are. What is not
        given is that of ``trace``.
        """
        self._check_model(trace)
        from_scale = self._scale(from_scale)
        if from_scale > trace.pyramid.depth:
            raise MedvarError(
                f"Scale {from_scale} cannot be resampled yet: this image has {trace.pyramid.depth} scales."
            )
        request = Request(
            trace.request.condition if condition is None else condition,
            trace.request.seed if seed is None else seed,
            trace.request.sampling if sampling is None else sampling,
        )
        self.backend.info.labels.encode(request.condition)
        held = None if mask is None else self._held(trace, from_scale, mask)
        return self._rebuilt(
            (request,),
            trace.pyramid.prefix(from_scale),
            tuple(scale[None] for scale in trace.entropy[:from_scale]),
            held=(held,) if held else (),
            edits=(Resample(from_scale, None if mask is None else np.array(mask, dtype=np.bool_)),),
            parents=(trace,),
        )

    def edit(self, trace: Trace, edit: Edit) -> Generation:
        """An image with some tokens put in by hand (`Replace`) or its coarse scales from another (`Graft`).

        After `Replace` the scales finer than the edited one are still to be drawn; after `Graft` none is.
        """
        self._check_model(trace)
        match edit:
            case Replace():
                k = self._scale(edit.scale)
                side = self.backend.info.schedule[k]
                if edit.where.shape != (side, side) or edit.tokens.shape != (side, side):
                    raise MedvarError(f"Scale {k} takes a mask and tokens of {side}×{side}.")
                self._check_tokens(edit.tokens[edit.where])
                pyramid = replace(trace.pyramid.prefix(min(k + 1, trace.pyramid.depth)), k, edit.where, edit.tokens)
                known = trace.entropy[: k + 1]
            case Graft():
                k = self._scale(edit.scale)
                self._check_model(edit.coarse)
                pyramid = graft(edit.coarse.pyramid, trace.pyramid, k)
                known = edit.coarse.entropy[:k]
                if len(known) == k:
                    known = (*known, *trace.entropy[k:])
            case Resample():
                return self.resample(trace, edit.from_scale, mask=edit.mask)
            case Encoded():
                raise MedvarError("Encoding starts from an image, not from a trace: use Generator.encode.")
        entropy_maps = tuple(scale[None] for scale in known)
        return self._rebuilt((trace.request,), pyramid, entropy_maps, edits=(edit,), parents=(trace,))

    def encode(self, images: FloatArray, requests: Sequence[Request]) -> Generation:
        """Real images ``(B, H, W)`` or ``(B, H, W, 3)`` in [-1, 1] as a finished generation."""
        size, channels = self.backend.info.image_size, self.backend.info.image_channels
        self._check_requests(requests)
        expected = (len(requests), size, size) + ((3,) if channels == 3 else ())
        if images.shape != expected:
            raise MedvarError(f"This model encodes images of shape {expected}, but got {images.shape}.")
        if not np.isfinite(images).all() or np.abs(images).max(initial=0) > 1 + 1e-3:
            raise MedvarError("Images to encode must be finite and within [-1, 1]; harmonise them first.")
        pixels = np.moveaxis(images, -1, 1) if channels == 3 else images[:, None]
        maps = self.backend.encode(np.ascontiguousarray(pixels, dtype=np.float32))
        pyramid = TokenPyramid.from_sequence(self.backend.info.schedule, np.concatenate(maps, axis=1))
        names = [hashlib.sha256(np.ascontiguousarray(i, dtype=np.float32).tobytes()).hexdigest() for i in images]
        return self._rebuilt(tuple(requests), pyramid, (), edits=tuple(map(Encoded, names)))

    # -- looking at images --------------------------------------------------------------------------------------

    def preview(self, generation: Generation, k: int) -> FloatArray:
        """The images decoded from scales ``0…k`` only: ``(B, H, W)``, or ``(B, H, W, 3)``, in [-1, 1]."""
        if not 0 <= k < generation.depth:
            raise MedvarError(f"There is no preview of scale {k}: {generation.depth} scales are made so far.")
        last = k + 1 == len(self.backend.info.schedule)
        return self._pixels(self.backend.decode(generation.latents[k], preview=not last))

    def image(self, generation: Generation) -> FloatArray:
        """The finished images: ``(B, H, W)``, or ``(B, H, W, 3)``, in [-1, 1]."""
        if not generation.complete:
            raise MedvarError("The images are not finished: run the generation to its end first.")
        return self._pixels(self.backend.decode(generation.latents[-1]))

    def likelihood(self, generation: Generation) -> tuple[FloatArray, ...]:
        """Negative log-likelihood in bits of every token under its own condition: ``(B, side, side)`` a scale."""
        past = self._rebuilt(generation.requests, generation.pyramid.prefix(0), ())
        result = []
        for k, side in enumerate(self.backend.info.schedule.sides[: generation.depth]):
            log_p = log_softmax(self._logits(past, guided=False))
            tokens = generation.pyramid.tokens(k)
            bits = -np.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0] / np.float32(np.log(2))
            result.append(bits.reshape(-1, side, side))
            past = self._grown(past, tokens, None)
        return tuple(result)

    # -- how ----------------------------------------------------------------------------------------------------

    def _logits(self, generation: Generation, guided: bool) -> FloatArray:
        """Logits of the next scale: B rows under the conditions, and B unconditional ones when ``guided``."""
        labels = self._labels(generation, guided)
        state = self._state(generation, labels)
        features = generation.features
        if features is not None and guided:
            features = np.concatenate([features, features])
        logits, longer = self.backend.step(state, features)
        if longer.depth < len(self.backend.info.schedule):  # nothing follows the finest scale
            self.cache.put(self._keys(generation.pyramid, labels, longer.depth), longer)
        return logits

    def _state(self, generation: Generation, labels: IntArray) -> PrefixState:
        """The prefix of all scales so far: from the cache, or computed again from the tokens."""
        depth = generation.depth
        for known in range(depth, 0, -1):
            if (rows := self.cache.get(self._keys(generation.pyramid, labels, known))) is not None:
                state = self.backend.gather(rows)
                break
        else:
            state, known = self.backend.start(labels), 0
        copies = len(labels) // len(generation.requests)
        for k in range(known, depth):
            features = self._features(generation, k)
            _, state = self.backend.step(state, None if features is None else np.concatenate([features] * copies))
            self.cache.put(self._keys(generation.pyramid, labels, k + 1), state)
        return state

    def _features(self, generation: Generation, k: int) -> FloatArray | None:
        """Input of scale k, from the tokens of scale k-1 and the latent before it."""
        if k == 0:
            return None
        before = generation.latents[k - 2] if k > 1 else None
        return self.backend.accumulate(before, generation.pyramid.tokens(k - 1), k - 1)[1]

    def _labels(self, generation: Generation, guided: bool) -> IntArray:
        space = self.backend.info.labels
        rows = [space.encode(request.condition) for request in generation.requests]
        return np.array(rows + [space.unconditional] * len(rows) * guided, dtype=np.int64)

    def _keys(self, pyramid: TokenPyramid, labels: IntArray, depth: int) -> list[Key]:
        """Names of the prefix states of ``depth`` scales. Scale k's keys and values follow from scales 0…k-1."""
        seen = pyramid.prefix(depth - 1).sequence
        contents = [row.tobytes() for row in seen]
        return [(tuple(label), depth, contents[i % len(contents)]) for i, label in enumerate(labels.tolist())]

    def _grown(self, generation: Generation, tokens: IntArray, bits: FloatArray | None) -> Generation:
        before = generation.latents[-1] if generation.latents else None
        latent, features = self.backend.accumulate(before, tokens, generation.depth)
        # Entropy goes by scale: where that of a coarser scale is not known (encoded images), it is not kept.
        known = len(generation.entropy) == generation.depth
        return changed(
            generation,
            pyramid=generation.pyramid.append(tokens),
            entropy=(*generation.entropy, bits) if known and bits is not None else generation.entropy,
            latents=(*generation.latents, latent),
            features=features,
        )

    def _rebuilt(
        self,
        requests: tuple[Request, ...],
        pyramid: TokenPyramid,
        known: tuple[FloatArray, ...],
        *,
        held: tuple[tuple[Held | None, ...], ...] = (),
        edits: tuple[Edit | None, ...] = (),
        parents: tuple[Trace | None, ...] = (),
    ) -> Generation:
        """A generation whose latents are summed up from its tokens."""
        self._check_tokens(pyramid.sequence)
        start = pyramid.prefix(0)
        generation = Generation(requests, start, (), (), None, self.backend.info.model, held, edits, parents)
        for k in range(pyramid.depth):
            generation = self._grown(generation, pyramid.tokens(k), None)
        return changed(generation, entropy=known)

    def _held(self, trace: Trace, from_scale: int, mask: BoolArray) -> tuple[Held | None, ...]:
        size = self.backend.info.image_size
        if mask.shape != (size, size):
            raise MedvarError(f"The mask must cover the image, {size}×{size} pixels, but is {mask.shape}.")
        if not trace.pyramid.complete:
            raise MedvarError("Resampling inside a mask needs a finished image, whose outside can be kept.")
        if not mask.any():
            raise MedvarError("The mask is empty: paint where the image may change.")
        sides = self.backend.info.schedule.sides
        return tuple(
            Held(~mask_at_scale(mask, side).ravel(), trace.pyramid.tokens(k)[0]) if k >= from_scale else None
            for k, side in enumerate(sides)
        )

    def _still_held(self, trace: Trace) -> tuple[Held | None, ...]:
        """What an unfinished trace, resampled inside a mask, keeps of its parent."""
        edit = trace.edit
        if trace.parent and not trace.pyramid.complete and isinstance(edit, Resample) and edit.mask is not None:
            self._check_model(trace.parent)
            self._check_tokens(trace.parent.pyramid.sequence)
            return self._held(trace.parent, self._scale(edit.from_scale), edit.mask)
        return (None,) * len(self.backend.info.schedule)

    def _scale(self, k: int) -> int:
        return self.backend.info.schedule.check_scale(k)

    def _check_model(self, trace: Trace) -> None:
        """Tokens mean something only to the model that made them."""
        info = self.backend.info
        if trace.pyramid.schedule != info.schedule:
            raise MedvarError(
                f"This image has scales of sides {trace.pyramid.schedule}, but the model has {info.schedule}; "
                "open the bundle that made it."
            )
        if trace.model != info.model:
            raise MedvarError(
                f"This image was made by another model (sha256 {trace.model[:12]}…, not {info.model[:12]}…); "
                "open the bundle that made it."
            )

    def _check_requests(self, requests: Sequence[Request]) -> None:
        if not requests:
            raise MedvarError("There is nothing to generate: the list of requests is empty.")
        for request in requests:
            self.backend.info.labels.encode(request.condition)

    def _check_tokens(self, tokens: IntArray) -> None:
        vocabulary = self.backend.info.vocabulary
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocabulary:
            raise MedvarError(
                f"Tokens must be within 0…{vocabulary - 1}, but range over {tokens.min()}…{tokens.max()}."
            )

    def _pixels(self, images: FloatArray) -> FloatArray:
        return images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(np.moveaxis(images, 1, -1))
