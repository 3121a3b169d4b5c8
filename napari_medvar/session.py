"""`GenerationSession`: a model and the pictures made with it in one sitting. No Qt and no napari.

A session is driven from one thread at a time. Its properties are immutable values, safe to read from another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.arrays import FloatArray
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle import Bundle, find_bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generation import Generation
from medvar_engine.generator import Generator
from medvar_engine.trace import Request, Trace
from napari_medvar.tree import TraceTree

KEPT_PREVIEWS = 200  # decoded pictures; 256 KiB each at 256×256


@dataclass(frozen=True, eq=False, slots=True)
class Model:
    """An opened bundle."""

    bundle: Bundle
    generator: Generator


def open_bundle(name: str | Path | None) -> Model:
    """The model of a shipped bundle's name or a bundle's folder; None is the first shipped one."""
    bundle = read_bundle(find_bundle(name))
    return Model(bundle, Generator(OnnxBackend(bundle)))


@dataclass(frozen=True, eq=False, slots=True)
class Preview:
    """The picture decoded from scales ``0…k`` of a generation."""

    generation: Generation
    k: int
    pixels: FloatArray  # (H, W), or (H, W, 3), in [-1, 1]

    @property
    def newest(self) -> bool:
        """Whether no finer scale has been made yet."""
        return self.k + 1 == self.generation.depth

    @property
    def trace(self) -> Trace:
        """What made the picture."""
        return self.generation.trace(0)


class GenerationSession:
    """Makes pictures scale by scale, keeps every one of them in a tree, and undoes.

    ``open_model`` is how a bundle's name becomes a model; tests give their own.
    """

    def __init__(self, open_model: Callable[[str | Path | None], Model] | None = None) -> None:
        self._open_model = open_model or open_bundle
        self._model: Model | None = None
        self._tree = TraceTree()
        self._past: list[TraceTree] = []
        self._future: list[TraceTree] = []
        self._previews: OrderedDict[str, FloatArray] = OrderedDict()

    # -- what is there ------------------------------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The loaded model."""
        return self._model

    @property
    def tree(self) -> TraceTree:
        """Every picture made with this model."""
        return self._tree

    @property
    def current(self) -> Generation | None:
        """The picture being looked at."""
        return self._tree.generation

    @property
    def trace(self) -> Trace | None:
        """What made the current picture."""
        return None if self.current is None else self.current.trace(0)

    def continues(self, request: Request) -> bool:
        """Whether ``request`` asks for the rest of the current, unfinished picture."""
        return self.current is not None and not self.current.complete and self.current.requests[0] == request

    # -- making pictures ----------------------------------------------------------------------------------------

    def load(self, name: str | Path | None = None) -> Model:
        """Open a bundle. The pictures of the model before are forgotten, for this one cannot go on with them."""
        self._model = self._open_model(name)
        self._tree = TraceTree()
        self._past.clear()
        self._future.clear()
        self._previews.clear()
        return self._model

    def generate(
        self, request: Request, *, until: int | None = None, should_stop: Callable[[], bool] | None = None
    ) -> Iterator[Preview]:
        """The preview of each scale as it is made, up to scale ``until`` (the finest by default).

        Goes on with the current picture when that is unfinished and was asked for by the same request.
        """
        before = self._tree
        if self.continues(request) and before.generation is not None:
            return self._make(before.generation, before.grown, until, should_stop)
        return self._make(self._generator.start([request]), before.added, until, should_stop)

    def step(self, request: Request) -> Iterator[Preview]:
        """One scale: the next of the current picture, or the first of a new one; see `generate`."""
        depth = self.current.depth if self.current is not None and self.continues(request) else 0
        return self.generate(request, until=depth)

    def resample(
        self, from_scale: int, request: Request, *, should_stop: Callable[[], bool] | None = None
    ) -> Iterator[Preview]:
        """A new picture that shares scales ``0…from_scale-1`` with the current one; finer ones follow ``request``."""
        before = self._tree
        if before.generation is None:
            raise MedvarError("There is no picture to resample yet: generate one first.")
        start = self._generator.resample(
            before.generation.trace(0),
            from_scale,
            seed=request.seed,
            condition=request.condition,
            sampling=request.sampling,
        )
        return self._make(start, lambda grown: before.added(grown, parent=before.current), None, should_stop)

    def previews(self, scales: Iterable[int] | None = None) -> Iterator[Preview]:
        """The previews of scales already made (all by default), the finest first: that is the one looked at."""
        current = self.current
        if current is not None:
            for k in reversed(range(current.depth) if scales is None else sorted(scales)):
                yield self._preview(current, k)

    # -- going back ---------------------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._future)

    def undo(self) -> None:
        """Back to what was there before the newest generate, step or resample."""
        if self._past:
            self._future.append(self._tree)
            self._tree = self._past.pop()

    def redo(self) -> None:
        """Takes back the newest undo."""
        if self._future:
            self._past.append(self._tree)
            self._tree = self._future.pop()

    # -- how ----------------------------------------------------------------------------------------------------

    @property
    def _generator(self) -> Generator:
        if self._model is None:
            raise MedvarError("No model is loaded yet: choose a bundle first.")
        return self._model.generator

    def _make(
        self,
        start: Generation,
        place: Callable[[Generation], TraceTree],
        until: int | None,
        should_stop: Callable[[], bool] | None,
    ) -> Iterator[Preview]:
        """Runs ``start``; ``place`` puts each of its generations into the tree as it was before."""
        before = self._tree
        for generation in self._generator.run(start, until=until, should_stop=should_stop):
            if self._tree is before:  # the first scale: nothing is to be undone before it is there
                self._past.append(before)
                self._future.clear()
            self._tree = place(generation)
            yield self._preview(generation, generation.depth - 1)

    def _preview(self, generation: Generation, k: int) -> Preview:
        """Decoded, or taken from the pictures decoded before: those of shared coarse scales are the same."""
        key = generation.pyramid.prefix(k + 1).digest(0)
        pixels = self._previews.get(key)
        if pixels is None:
            pixels = self._generator.preview(generation, k)[0]
            self._previews[key] = pixels
            if len(self._previews) > KEPT_PREVIEWS:
                self._previews.popitem(last=False)
        self._previews.move_to_end(key)
        return Preview(generation, k, pixels)
