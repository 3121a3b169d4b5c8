"""`Generator`: the coarse-to-fine loop over a `Backend`, and everything that starts from an existing image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace as changed
from typing import Unpack

import numpy as np

from medvar_engine.backends.base import Backend
from medvar_engine.backends.check_outputs import check_tokens
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate import likelihood
from medvar_engine.generate.composite import FinishedImages, exact_outside, image_key
from medvar_engine.generate.edits import Edit, Encoded, Graft, Replace, Resample, grafted, replaced
from medvar_engine.generate.finished_mask import finished_mask
from medvar_engine.generate.frozen_tokens import FrozenTokens, frozen_tokens
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.inversion import Inversion
from medvar_engine.generate.prefix_cache import PrefixCache
from medvar_engine.generate.prefix_runner import Prefixes
from medvar_engine.generate.resample import ResampleOptions, check_resample, resample_edit
from medvar_engine.generate.sampling import draw, entropy
from medvar_engine.generate.trace import Trace
from medvar_engine.generate.validation import check_drawn, check_images, check_masks, check_model, check_requests
from medvar_engine.masks.structures import MaskArray
from medvar_engine.request import MAX_SEED, Request, Sampling
from medvar_engine.storage import sha256_of
from medvar_engine.tokens.pyramid import TokenPyramid, one_token
from medvar_engine.types import FloatArray, IntArray


class Generator:
    """Makes images scale by scale. It holds a backend and caches, and no other state.

    >>> generator = Generator(OnnxBackend(open_bundle()))  # doctest: +SKIP
    >>> generation = generator.start([Request(Condition(region="brain"), seed=7)])  # doctest: +SKIP
    >>> for generation in generator.run(generation):  # doctest: +SKIP
    ...     show(generator.preview(generation, generation.depth - 1))
    """

    def __init__(self, backend: Backend, cache: PrefixCache | None = None) -> None:
        self.backend = backend
        self.cache = PrefixCache() if cache is None else cache
        self._prefixes = Prefixes(backend, self.cache)
        self._finished_images = FinishedImages(
            lambda trace: self._pixels(self.backend.decode(self.restore([trace]).latents[-1]))[0]
        )

    # -- making images ----------------------------------------------------------------------------------------------

    def start(self, requests: Sequence[Request]) -> Generation:
        """Images without any scale. Raises `MedvarError` for a condition that the model does not know."""
        check_requests(self.backend.info, requests)
        return self._prefixes.start(requests)

    def step(self, generation: Generation) -> Generation:
        """The generation with one more scale."""
        if generation.complete:
            raise MedvarError("This generation is complete; resample it from a scale to continue.")
        for request in generation.requests:
            check_drawn(self.backend.info, request)
        k, batch = generation.depth, len(generation.requests)
        drawn = [
            (_drawn(generation, image, logits), entropy(logits))
            for image, logits in enumerate(self._prefixes.guided_logits(generation))
        ]
        tokens, bits = map(np.stack, zip(*drawn, strict=True))
        side = self.backend.info.schedule[k]
        return self._prefixes.grow(generation, tokens, bits.reshape(batch, side, side))

    def run(
        self,
        generation: Generation,
        *,
        until: int | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[Generation]:
        """Yields the generation after each scale, up to and including scale ``until`` (the finest by default).

        ``should_stop`` is called before each scale.
        """
        last = self._scale(len(self.backend.info.schedule) - 1 if until is None else until)
        while generation.depth <= last and not (should_stop and should_stop()):
            generation = self.step(generation)
            yield generation

    def finish(self, generation: Generation, progress: Callable[[int], None] | None = None) -> Generation:
        """The generation with all its scales. ``progress`` is called after each scale with the number of images."""
        while not generation.complete:
            generation = self.step(generation)
            if progress is not None:
                progress(len(generation.requests))
        return generation

    # -- from an earlier image --------------------------------------------------------------------------------------

    def restore(self, traces: Sequence[Trace]) -> Generation:
        """A generation from traces of the same depth, e.g. to show an image that was read from a file."""
        for trace in traces:
            check_model(self.backend.info, trace)
        pyramid = TokenPyramid.stack(trace.pyramid for trace in traces)
        depths = {len(trace.entropy) for trace in traces}
        known = (
            tuple(np.stack(maps) for maps in zip(*(t.entropy for t in traces), strict=True)) if len(depths) == 1 else ()
        )
        frozen, inversions = tuple(map(self._still_frozen, traces)), tuple(map(self._still_inverted, traces))
        return self._rebuilt(
            tuple(trace.request for trace in traces),
            pyramid,
            known,
            frozen=frozen if any(map(any, frozen)) else (),
            inversions=inversions if any(inversions) else (),
            edits=tuple(trace.edit for trace in traces),
            parents=tuple(trace.parent for trace in traces),
        )

    def resample(
        self, trace: Trace, from_scale: int, *, seed: int | None = None, **options: Unpack[ResampleOptions]
    ) -> Generation:
        """An image that shares scales ``0…from_scale-1`` with ``trace``; the rest is still to be drawn.

        Options that are not given are those of ``trace``; see `ResampleOptions`. A slice of a stack keeps its place in
        the stack. Under another condition the shared scales are processed again under that condition: their tokens
        stay, and the first such resample costs one pass over them.
        """
        return self.resample_many(trace, from_scale, [trace.request.seed if seed is None else seed], **options)

    def resample_many(
        self, trace: Trace, from_scale: int, seeds: Sequence[int], **options: Unpack[ResampleOptions]
    ) -> Generation:
        """Candidates: one continuation of ``trace`` per seed, in one batch. Each equals the result of `resample`."""
        check_model(self.backend.info, trace)
        edit, inversion = resample_edit(trace.pyramid.schedule, from_scale, options), options.get("inversion")
        check_resample(trace.pyramid, edit, self.backend.info.image_size)
        if inversion and inversion.trace.pyramid != trace.pyramid:
            raise MedvarError("This inversion belongs to another image: invert the one that is resampled.")
        condition = options.get("condition") or trace.request.condition
        sampling = options.get("sampling") or trace.request.sampling
        # A slice of a stack stays one, so that it fits its neighbours, and its own seed gives the same image.
        requests = tuple(Request(condition, seed, sampling, stack=trace.request.stack) for seed in seeds)
        check_requests(self.backend.info, requests)
        frozen, count = frozen_tokens(trace.pyramid, edit), len(requests)
        return self._rebuilt(
            requests,
            trace.pyramid.prefix(from_scale).select([0] * count),
            tuple(np.stack([scale] * count) for scale in trace.entropy[:from_scale]),
            frozen=(frozen,) * count if any(frozen) else (),
            inversions=(inversion,) * count if inversion else (),
            edits=(edit,) * count,
            parents=(trace,) * count,
        )

    def best_of(
        self,
        start: Generation | Trace,
        from_scale: int,
        n: int,
        score: Callable[[FloatArray], FloatArray],
        *,
        until: int | None = None,
        seed: int | None = None,
        **options: Unpack[ResampleOptions],
    ) -> Generation:
        """The best of ``n`` candidates by their coarse scales; its finer scales are still to be drawn.

        Choosing early costs little, because coarse scales have few tokens (the idea of TTS-VAR). The candidates have
        the seeds ``seed``, ``seed + 1``, …; each equals the result of `resample` with its seed.

        Args:
            start: one image; without any scale, the candidates are new images.
            from_scale: the first scale that is drawn.
            n: number of candidates.
            score: images of scale ``until`` from the full decoder, ``(n, H, W)`` → one number each, ``(n,)``. The
                highest wins.
            until: the scale at which they are compared; ``from_scale`` by default.
            seed: seed of the first candidate; by default the seed of the image.
            options: see `ResampleOptions`.
        """
        trace = _one(start)
        until = self._scale(from_scale if until is None else until)
        if n < 1 or until < from_scale:
            raise MedvarError(f"{n} candidates drawn from scale {from_scale} on cannot be compared at scale {until}.")
        first = trace.request.seed if seed is None else seed
        drawn = self.resample_many(trace, from_scale, [(first + i) % (MAX_SEED + 1) for i in range(n)], **options)
        if not trace.pyramid.depth and trace.edit is None:  # new images, without a parent
            drawn = changed(drawn, edits=(), parents=())
        *_, drawn = self.run(drawn, until=until)
        scores = np.asarray(score(self.image_so_far(drawn)), dtype=np.float64)
        if scores.shape != (n,) or np.isnan(scores).any():
            raise MedvarError(f"score must return {n} numbers, one for each image, but returned {scores}.")
        return self.restore([drawn.trace(int(scores.argmax()))])

    def edit(self, trace: Trace, edit: Edit) -> Generation:
        """An image with some tokens replaced by hand (`Replace`), or with coarse scales of another image (`Graft`).

        After `Replace`, the scales finer than the edited one are still to be drawn; after `Graft`, none are.
        """
        check_model(self.backend.info, trace)
        match edit:
            case Replace():
                pyramid, known = replaced(trace, edit)
            case Graft():
                check_model(self.backend.info, edit.coarse)
                pyramid, known = grafted(trace, edit)
            case Resample():
                outside, inverted = edit.outside, edit.inverted
                return self.resample(
                    trace,
                    edit.from_scale,
                    mask=edit.mask,
                    keep=edit.keep,
                    exact_outside=outside is not None,
                    soft_edge=outside.soft_edge if outside else 0.0,
                    inversion=self._inverted(trace, inverted) if inverted else None,
                )
            case Encoded():
                raise MedvarError("Encoding starts from an image, not from a trace: use Generator.encode.")
        check_tokens(self.backend.info, pyramid.sequence)
        entropy_maps = tuple(scale[None] for scale in known)
        return self._rebuilt((trace.request,), pyramid, entropy_maps, edits=(edit,), parents=(trace,))

    def with_token(self, trace: Trace, k: int, row: int, column: int, token: int) -> Generation:
        """An image with one token of scale k replaced by hand; see `edit`."""
        where = one_token(self.backend.info.schedule, k, row, column)
        return self.edit(trace, Replace(k, where, where * np.int64(token)))

    def invert(
        self,
        start: Generation | Trace,
        *,
        condition: Condition | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Inversion:
        """Noise from which the model draws a given finished image; pass it to `resample` with another condition.

        Under ``condition`` and ``sampling``, by default those of the image, this noise gives the same tokens. There
        are many such values; ``seed`` selects one. Costs one pass over all scales.
        """
        trace = _one(start)
        own = trace.request
        request = Request(
            own.condition if condition is None else condition,
            own.seed if seed is None else seed,
            own.sampling if sampling is None else sampling,
            stack=own.stack,  # its resamples keep it, and it changes the logits
        )
        return self._inverted(trace, request)

    def encode(
        self, images: FloatArray, requests: Sequence[Request], masks: MaskArray | None = None, *, real: bool = True
    ) -> Generation:
        """Images ``(B, H, W)`` or ``(B, H, W, 3)`` in [-1, 1] as a finished generation.

        A model of pairs takes ``masks`` ``(B, H, W)`` with them. To move an organ, encode an image with its new mask,
        and `resample` it from some scale with the scales of masks kept.

        All that is made from them counts as made from a real image. Set ``real`` to false only for images that the
        model made without one.
        """
        info = self.backend.info
        check_requests(info, requests)
        check_images(info, images, len(requests))
        check_masks(info, masks, len(requests))
        pixels = np.moveaxis(images, -1, 1) if info.image_channels == 3 else images[:, None]
        if masks is not None:
            pixels = np.concatenate([pixels, masks[:, None].astype(np.float32)], axis=1)
        maps = self.backend.encode(np.ascontiguousarray(pixels, dtype=np.float32))
        pyramid = TokenPyramid.from_sequence(info.schedule, np.concatenate(maps, axis=1))
        named = images if masks is None else pixels
        names = [sha256_of(np.ascontiguousarray(i, dtype=np.float32).tobytes()) for i in named]
        return self._rebuilt(tuple(requests), pyramid, (), edits=tuple(Encoded(name, real) for name in names))

    def from_masks(self, masks: MaskArray, requests: Sequence[Request]) -> Generation:
        """Images for given masks ``(B, H, W)``, without any scale yet: tokens of masks are frozen, others are drawn.

        Raises `MedvarError` for a model without masks, for an empty mask, and for structures that the model does not
        know.
        """
        info = self.backend.info
        check_masks(info, masks, len(requests))
        if not masks.any(axis=(1, 2)).all():
            raise MedvarError("The mask is empty: paint at least one structure.")
        blank = np.full(masks.shape, -1, dtype=np.float32)
        parents = self.encode(blank, requests, masks, real=False).traces
        edit = resample_edit(info.schedule, 0, {"keep": info.mask_scales})
        return changed(
            self.start(requests),
            frozen=tuple(frozen_tokens(parent.pyramid, edit) for parent in parents),
            edits=(edit,) * len(requests),
            parents=parents,
        )

    # -- looking at images ------------------------------------------------------------------------------------------

    def preview(self, generation: Generation, k: int) -> FloatArray:
        """The images decoded from scales ``0…k`` only: ``(B, H, W)``, or ``(B, H, W, 3)``, in [-1, 1].

        The light decoder is used if the bundle has one, except for the finest scale. An exact outside of a mask shows
        the finished image of the parent at every scale.
        """
        if not 0 <= k < generation.depth:
            raise MedvarError(f"There is no preview of scale {k}: {generation.depth} scales are made so far.")
        return self._shown(generation, k, light=k + 1 < len(self.backend.info.schedule))

    def image_so_far(self, generation: Generation) -> FloatArray:
        """The images of all scales so far from the full decoder, finished or not, as they are written to files."""
        return self._shown(generation, generation.depth - 1, light=False)

    def pairs(self, generation: Generation, k: int | None = None) -> tuple[FloatArray, MaskArray]:
        """Images of scales ``0…k``, by default of all made so far, as from `preview` or `image_so_far`, and masks.

        Masks ``(B, H, W)`` hold numbers of structures. Raises `MedvarError` for a model without masks.
        """
        info = self.backend.info
        if not info.structures:
            raise MedvarError("This model makes images without masks.")
        light = k is not None and k + 1 < len(info.schedule)
        k = generation.depth - 1 if k is None else k
        if not 0 <= k < generation.depth:
            raise MedvarError(f"There is no preview of scale {k}: {generation.depth} scales are made so far.")
        decoded = self.backend.decode(generation.latents[k], preview=light)

        def decoded_mask(trace: Trace) -> MaskArray:
            mask: MaskArray = self._masks(self.backend.decode(self.restore([trace]).latents[-1]))[0]
            return mask

        own = zip(generation.traces, self._masks(decoded), strict=True)
        masks = [finished_mask(trace, mask, decoded_mask) for trace, mask in own]
        return self._composed(generation, k, self._pixels(decoded)), np.stack(masks)

    def _masks(self, decoded: FloatArray) -> MaskArray:
        masks: MaskArray = decoded[:, self.backend.info.image_channels].astype(np.uint8)
        return masks

    def _shown(self, generation: Generation, k: int, *, light: bool) -> FloatArray:
        return self._composed(generation, k, self._pixels(self.backend.decode(generation.latents[k], preview=light)))

    def _composed(self, generation: Generation, k: int, decoded: FloatArray) -> FloatArray:
        traces = generation.traces
        if any(map(exact_outside, traces)):
            pairs = zip(traces, decoded, strict=True)
            decoded = np.stack([self._finished_images.finished(trace, image) for trace, image in pairs])
        if k + 1 == len(self.backend.info.schedule):
            for trace, image in zip(traces, decoded, strict=True):
                self._finished_images.keep(image_key(trace), image.copy())
        return decoded

    def image(self, generation: Generation) -> FloatArray:
        """The finished images: ``(B, H, W)``, or ``(B, H, W, 3)``, in [-1, 1]."""
        if not generation.complete:
            raise MedvarError("The images are not finished: run the generation to the end first.")
        return self.image_so_far(generation)

    def token_previews(self, trace: Trace, k: int, row: int, column: int, tokens: Sequence[int]) -> FloatArray:
        """The preview of scale k with each of ``tokens`` at one position: ``(N, H, W)``, or ``(N, H, W, 3)``."""
        info, pyramid = self.backend.info, trace.pyramid
        check_model(info, trace)
        where, choices = one_token(info.schedule, k, row, column), np.asarray(tokens, dtype=np.int64)
        check_tokens(info, choices)
        if k >= pyramid.depth or not len(choices):
            raise MedvarError(f"Scale {k} of {pyramid.depth} made so far cannot be shown with {len(choices)} tokens.")
        *_, before = self._prefixes.replay([trace.request], pyramid.prefix(k))
        maps = np.where(where, choices[:, None, None], pyramid.maps[k]).reshape(len(choices), -1)
        latent = np.repeat(before.latents[-1], len(choices), axis=0) if before.latents else None
        latents, _ = self.backend.accumulate(latent, maps, k)
        return self._pixels(self.backend.decode(latents, preview=k + 1 < len(info.schedule)))

    # -- reading the model ------------------------------------------------------------------------------------------

    def likelihood(self, generation: Generation) -> tuple[FloatArray, ...]:
        """See `likelihood.likelihood`."""
        return likelihood.likelihood(self._prefixes, generation)

    def anomaly_map(self, generation: Generation) -> FloatArray:
        """See `likelihood.anomaly_map`."""
        return likelihood.anomaly_map(self._prefixes, generation)

    def features(self, generation: Generation) -> FloatArray:
        """See `likelihood.features`."""
        return likelihood.features(self._prefixes, generation)

    # -- internals --------------------------------------------------------------------------------------------------

    def _rebuilt(
        self,
        requests: tuple[Request, ...],
        pyramid: TokenPyramid,
        known: tuple[FloatArray, ...],
        *,
        frozen: tuple[tuple[FrozenTokens | None, ...], ...] = (),
        inversions: tuple[Inversion | None, ...] = (),
        edits: tuple[Edit | None, ...] = (),
        parents: tuple[Trace | None, ...] = (),
    ) -> Generation:
        """A generation with latents computed from its tokens."""
        *_, generation = self._prefixes.replay(requests, pyramid)
        return changed(generation, entropy=known, frozen=frozen, inversions=inversions, edits=edits, parents=parents)

    def _still_frozen(self, trace: Trace) -> tuple[FrozenTokens | None, ...]:
        """Frozen tokens of an unfinished trace that was resampled inside a mask or with locked scales."""
        edit, parent = trace.edit, trace.parent
        if parent and not trace.pyramid.complete and isinstance(edit, Resample):
            check_model(self.backend.info, parent)
            check_resample(parent.pyramid, edit, self.backend.info.image_size)
            return frozen_tokens(parent.pyramid, edit)
        return (None,) * len(self.backend.info.schedule)

    def _still_inverted(self, trace: Trace) -> Inversion | None:
        """The noise of an unfinished trace that is drawn with an inversion of its parent."""
        edit, parent = trace.edit, trace.parent
        if parent and not trace.pyramid.complete and isinstance(edit, Resample) and edit.inverted:
            return self._inverted(parent, edit.inverted)
        return None

    def _inverted(self, trace: Trace, request: Request) -> Inversion:
        check_model(self.backend.info, trace)
        check_requests(self.backend.info, [request])
        return likelihood.invert(self._prefixes, trace, request)

    def _scale(self, k: int) -> int:
        return self.backend.info.schedule.check_scale(k)

    def _pixels(self, images: FloatArray) -> FloatArray:
        images = images[:, : self.backend.info.image_channels]
        return images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(np.moveaxis(images, 1, -1))


def _drawn(generation: Generation, image: int, logits: FloatArray) -> IntArray:
    """Tokens ``(L_k,)`` of the next scale of one image, from its guided logits ``(L_k, V)``."""
    request, k = generation.requests[image], generation.depth
    sampling = request.sampling.at(k, len(generation.pyramid.schedule))
    inversion = generation.inversions[image] if generation.inversions else None
    frozen = generation.frozen[image][k] if generation.frozen else None
    if inversion:
        tokens = inversion.redraw(logits, sampling, k)
    else:
        tokens = draw(logits, sampling, request.seed, k, request.stack.slice if request.stack else 0)
    return frozen.put_back(tokens) if frozen else tokens


def _one(start: Generation | Trace) -> Trace:
    """The trace of one image."""
    if isinstance(start, Trace):
        return start
    if len(start.requests) != 1:
        raise MedvarError(
            f"One image is needed, but this generation has {len(start.requests)}. Pass the trace of one image."
        )
    return start.trace(0)
