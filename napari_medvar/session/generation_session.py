"""`GenerationSession`: a model and the pictures made with it in one sitting. No Qt and no napari.

A session is driven from one thread at a time. Its properties are immutable values, safe to read from another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.resample import ResampleOptions
from medvar_engine.generate.trace import Graft, Replace, Trace
from medvar_engine.masks.structures import MaskArray
from medvar_engine.request import MAX_SEED, Request
from medvar_engine.tokens.codebook import codes_of_scale, nearest_codes
from medvar_engine.types import BoolArray, FloatArray, IntArray
from medvar_engine.write.provenance import read_trace
from napari_medvar.session.autosave import Autosave, Recoverable
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.opened_model import Model, find_bundle_of, open_bundle
from napari_medvar.session.previews import Candidates, Preview, Previews, Progress
from napari_medvar.session.session_file import SUFFIX, SavedSession, read_session, tree_of, write_session
from napari_medvar.session.trace_tree import Node, TraceTree
from napari_medvar.session.undo_history import History

__all__ = ["Candidates", "GenerationSession", "Made", "Model", "Preview", "Progress", "ShouldStop", "open_bundle"]

Made = Preview | Progress
OpenModel = Callable[[str | Path | None, str | None], Model]
"""A bundle's name or folder, and the one of its models that traces name so, by default its own → that model."""
ShouldStop = Callable[[], bool] | None


class GenerationSession:
    """Makes pictures scale by scale, keeps every one of them in a tree, undoes, saves, and survives crashes.

    What makes pictures is an iterator, and goes on while it is iterated; ``should_stop`` is asked before each scale.
    Each call is one step of undo. ``open_model`` is how bundles are opened; tests give their own.
    Without ``show_previews`` only finished pictures are decoded; of the scales before, a `Progress` tells.
    """

    def __init__(
        self,
        open_model: OpenModel | None = None,
        *,
        autosave: Autosave | None = None,
        show_previews: bool = True,
    ) -> None:
        self.panels: Mapping[str, Any] = {}  # plain JSON values that are saved along
        self.show_previews = show_previews
        self.open_model = open_model or open_bundle
        self._model: Model | None = None
        self._history = History()
        self._previews = Previews()
        self._autosave = autosave
        self._safe: tuple[TraceTree, Mapping[str, Any]] | None = None  # what the autosave holds
        self._saved = TraceTree()  # what the user's file holds

    # -- what is there ------------------------------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The loaded model."""
        return self._model

    @property
    def tree(self) -> TraceTree:
        """Every picture made with this model."""
        return self._history.present

    @property
    def node(self) -> Node | None:
        """The node being looked at."""
        return self.tree.current_node

    @property
    def current(self) -> Generation | None:
        """The picture being looked at."""
        return self.tree.generation

    @property
    def trace(self) -> Trace | None:
        """What made the current picture."""
        return None if self.node is None else self.node.trace

    @property
    def modified(self) -> bool:
        """Whether there is something that no file of the user's holds."""
        return bool(self.tree.nodes) and self.tree.nodes is not self._saved.nodes

    @property
    def autosave_problem(self) -> str | None:
        """Why the session is not safe from a crash, for the user to read; None when it is."""
        return None if self._autosave is None else self._autosave.problem

    def continues(self, request: Request) -> bool:
        """Whether ``request`` asks for the rest of the current, unfinished picture."""
        return self.current is not None and not self.current.complete and self.current.requests[0] == request

    # -- making pictures ----------------------------------------------------------------------------------------

    def load(self, name: str | Path | None = None) -> Model:
        """Open a bundle.

        Pictures of the model before are put away, for this one cannot go on with them. They are forgotten, but for
        those that no file holds: these the autosave keeps, and `recoverable` finds.
        """
        return self._begin(self.open_model(name, None), History())

    def reopen(self, name: str | Path | None = None) -> Model:
        """`load`, but the pictures stay if it is the model that made them: on another device, or a server."""
        before, model = self._model, self.open_model(name, None)
        if before is None or not model.made(before.id):
            return self._begin(model, History())
        self._previews.clear()
        self._model = model
        return model

    def generate(
        self, request: Request, *, count: int = 1, until: int | None = None, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """The preview of each scale as it is made, up to scale ``until`` (the finest by default).

        Goes on with the current picture when that is unfinished and was asked for by the same request, and with those
        that were begun together with it. Otherwise makes ``count`` new ones, with seeds one up from each to the next;
        the first becomes the current one, whose previews come scale by scale. Those of the others come at the end.
        """
        if self.continues(request):
            return self._go_on(until, should_stop)
        return self._keep(self._run(self._generator.start(_numbered(request, count)), until, should_stop))

    def step(self, request: Request) -> Iterator[Made]:
        """One scale: the next of the current picture, or the first of a new one; see `generate`."""
        depth = self.current.depth if self.current is not None and self.continues(request) else 0
        return self.generate(request, until=depth)

    def resample(
        self, from_scale: int, request: Request, *, should_stop: ShouldStop = None, **options: Unpack[ResampleOptions]
    ) -> Iterator[Made]:
        """A new picture that shares scales ``0…from_scale-1`` with the current one; finer ones follow ``request``.

        ``options`` are those of `ResampleOptions`: a mask, locked scales, an outside that is kept exactly.
        """
        node = self._looked_at("resample")
        start = self._continued(node, from_scale, [request], options)
        return self._keep(self._run(start, None, should_stop), parent=node.id, seen=from_scale)

    def graft(self, scale: int, *, coarse: int, fine: int, should_stop: ShouldStop = None) -> Iterator[Made]:
        """Scales ``0…scale-1`` of node ``coarse`` under the others of node ``fine``: a child of that one."""
        edit = Graft(scale, self.tree.node(coarse).trace)
        return self._edited(self._generator.edit(self.tree.node(fine).trace, edit), fine, should_stop)

    def replace_tokens(
        self, scale: int, where: BoolArray, tokens: IntArray, *, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """The current picture with ``tokens`` put in ``where``, both ``(side, side)``; finer scales are drawn again."""
        node = self._looked_at("edit")
        return self._edited(self._generator.edit(node.trace, Replace(scale, where, tokens)), node.id, should_stop)

    def start_from_image(
        self, image: FloatArray, condition: Condition, *, name: str = "", image_space: ImageSpace | None = None
    ) -> Iterator[Made]:
        """A real image, harmonised to ``(H, W)`` in [-1, 1], as a node: its finest preview is its reconstruction.

        Resampling that node from a scale varies the image from there on, in the same ``image_space``.
        """
        start = self._generator.encode(image[np.newaxis], [Request(condition)])
        return self._keep([start], name=name, image_space=image_space)

    def draw_to_mask(
        self, request: Request, mask: MaskArray, *, count: int = 1, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """``count`` new pictures to a given mask ``(H, W)``, as `generate` makes new ones."""
        start = self._generator.from_masks(np.stack([mask] * count), _numbered(request, count))
        return self._keep(self._run(start, None, should_stop))

    def redraw_to_mask(
        self, from_scale: int, request: Request, mask: MaskArray, *, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """The current picture with another mask ``(H, W)``, its image drawn again from a scale on: a child of it."""
        node, generator = self._looked_at("draw again"), self._generator
        if not node.generation.complete:
            raise MedvarError("Another mask needs a finished image: make its other scales first.")
        source = generator.encode(generator.image(node.generation), [request], mask[np.newaxis]).trace(0)
        kept = generator.backend.info.mask_scales
        start = generator.resample(
            source, from_scale, seed=request.seed, condition=request.condition, sampling=request.sampling, keep=kept
        )
        return self._keep(self._run(start, None, should_stop), parent=node.id, seen=from_scale)

    def image_space_of(self, node: Node) -> ImageSpace:
        """What a picture's pixels stand for and where they lie."""
        return node.image_space or ImageSpace.of(self._loaded.bundle, node.trace.request.condition)

    def candidates(
        self,
        from_scale: int,
        request: Request,
        count: int,
        *,
        until: int | None = None,
        should_stop: ShouldStop = None,
        **options: Unpack[ResampleOptions],
    ) -> Iterator[Candidates]:
        """``count`` continuations of the current picture from a scale on, to choose from: up to ``until``, or just it.

        Seeds go one up from ``request.seed``; ``options`` as in `resample`. Without a current picture, new ones.
        Nothing is kept before `pick`.
        """
        node, requests = self.node, _numbered(request, count)
        if node is None and from_scale == 0:
            start = self._generator.start(requests)
        else:
            start = self._continued(self._looked_at("continue"), from_scale, requests, options)
        parent = None if node is None else node.id
        for generation in self._run(start, from_scale if until is None else until, should_stop):
            yield Candidates(generation, parent, self._generator.preview(generation, generation.depth - 1))

    def pick(self, candidates: Candidates, images: Sequence[int], *, should_stop: ShouldStop = None) -> Iterator[Made]:
        """Keep and finish one candidate or several, by their places; the first becomes the current picture."""
        return self._edited(candidates.generation.select(images), candidates.parent, should_stop)

    # -- looking at pictures ------------------------------------------------------------------------------------

    def previews(self, scales: Iterable[int] | None = None, *, node: int | None = None) -> Iterator[Preview]:
        """Previews of ``scales`` already made, by default all, the finest, which is looked at, first.

        Of the current picture, or another ``node``.
        """
        shown = self.node if node is None else self.tree.node(node)
        if shown is not None:
            for k in reversed(range(shown.generation.depth) if scales is None else sorted(scales)):
                yield self._previews.of(self._generator, shown, k)

    def compare(self, one: int, other: int, k: int | None = None) -> tuple[Preview, Preview]:
        """Two nodes' previews of scale ``k``, by default the finest that both have."""
        first, second = self.tree.node(one), self.tree.node(other)
        shared = min(first.generation.depth, second.generation.depth) - 1 if k is None else k
        return self._previews.of(self._generator, first, shared), self._previews.of(self._generator, second, shared)

    def entropy_maps(self) -> tuple[FloatArray, ...]:
        """How unsure the model was of each token, in bits: ``(side, side)`` a scale. Empty for a real image."""
        return self._looked_at("map").trace.entropy

    def likelihood_maps(self) -> tuple[FloatArray, ...]:
        """How unlikely each token of the current picture is to the model, in bits: ``(side, side)`` a scale."""
        return tuple(scale[0] for scale in self._generator.likelihood(self._looked_at("map").generation))

    def anomaly_map(self) -> FloatArray:
        """Where the current picture is unlikely, over its pixels: ``(H, W)``."""
        return self._generator.anomaly_map(self._looked_at("map").generation)[0]

    def token_pictures(self, scale: int, row: int, column: int, tokens: Sequence[int]) -> FloatArray:
        """The preview of a scale of the current picture with each of ``tokens`` in one place: ``(N, H, W)``."""
        return self._generator.token_pictures(self._looked_at("edit").trace, scale, row, column, tokens)

    def nearby_tokens(self, scale: int, token: int, count: int) -> IntArray:
        """The ``count`` tokens of a scale most alike ``token``, itself first.

        Raises `MedvarError` when the model does not know its codes.
        """
        codebook = self._generator.backend.codebook
        if codebook is None:
            raise MedvarError(
                "This model holds no codebook, so it is not known which tokens are alike. Export it anew with "
                "`medvar export`."
            )
        return nearest_codes(codes_of_scale(codebook, scale), token, count)[0]

    # -- the tree -----------------------------------------------------------------------------------------------

    def select(self, node: int) -> None:
        """Look at another picture, to branch from it, say. No step of undo."""
        self._history = self._history.now(self.tree.selected(node))
        self._make_safe()

    def rename(self, node: int, name: str) -> None:
        """Give a picture a name."""
        self._step(self.tree.renamed(node, name))

    def star(self, nodes: Iterable[int], *, starred: bool) -> None:
        """Star pictures, or take their stars away."""
        self._step(self.tree.with_stars(nodes, starred))

    def delete(self, node: int) -> None:
        """Take a picture out. What was made from it stays, and hangs on its parent."""
        self._step(self.tree.deleted(node))

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._history.past)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._history.future)

    def undo(self) -> None:
        """Back to what was there before the newest change."""
        self._history = self._history.undone()
        self._make_safe()

    def redo(self) -> None:
        """Takes back the newest undo."""
        self._history = self._history.redone()
        self._make_safe()

    # -- files --------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> Path:
        """Write all pictures and ``panels`` as ``*.medvar``. What undo would bring back is not in it."""
        if not self.tree.nodes:
            raise MedvarError("There is nothing to save yet: generate an image first.")
        write_session(path, self._content())
        self._saved = self.tree
        return path

    def would_lose(self, path: Path) -> bool:
        """Whether `open` of this file would put away pictures that no file of the user's holds."""
        if not self.modified:
            return False
        if path.suffix.lower() == SUFFIX:
            return True
        try:
            return not self._loaded.made(read_trace(path).bundle_id)
        except MedvarError:
            return False  # `open` says what is wrong with the file

    def open(self, path: Path) -> Iterator[Model | Preview]:
        """A saved session in place of this one; or a picture that medvar wrote, as a node more.

        Opens the bundle that made it. The model comes first, then the current picture's previews, the finest first.
        """
        if path.suffix.lower() == SUFFIX:
            yield self._restore(read_session(path))
            self._saved = self.tree
        else:
            trace = read_trace(path)
            model = self._model_of(trace.bundle_id, "")
            if model is not self._model:
                self._begin(model, History())
            yield model
            self._step(self.tree.added([model.generator.restore([trace])], names=[path.name]))
        yield from self.previews()

    def recover(self, crashed: Recoverable) -> Iterator[Model | Preview]:
        """A session that a crash has left in place of this one; its file is deleted once this one is safe itself."""
        yield self._restore(read_session(crashed.path))
        if self._autosave is not None and self._autosave.problem is None:
            crashed.discard()
        yield from self.previews()

    def close(self) -> None:
        """The user has ended the session: nothing needs to be recovered."""
        if self._autosave is not None:
            self._autosave.close()

    # -- how ----------------------------------------------------------------------------------------------------

    @property
    def _generator(self) -> Generator:
        return self._loaded.generator

    @property
    def _loaded(self) -> Model:
        if self._model is None:
            raise MedvarError("No model is loaded yet: choose one first.")
        return self._model

    def _looked_at(self, to: str) -> Node:
        if self.node is None:
            raise MedvarError(f"There is no image to {to} yet: generate one first.")
        return self.node

    @property
    def unfinished(self) -> tuple[Node, ...]:
        """The current picture, if it is unfinished, and those begun together with it: they differ in their seeds only.

        They stand side by side in the history, for they were put there at once.
        """
        tree = self.tree  # once: another thread may be at work on the session
        node, nodes = tree.current_node, tree.nodes
        if node is None or node.generation.complete:
            return ()
        place = nodes.index(node)
        alike = [_begun_together(node, other, i - place) for i, other in enumerate(nodes)]
        first = last = place
        while first > 0 and alike[first - 1]:
            first -= 1
        while last + 1 < len(nodes) and alike[last + 1]:
            last += 1
        return (node, *(other for other in nodes[first : last + 1] if other is not node))

    def _go_on(self, until: int | None, should_stop: ShouldStop) -> Iterator[Made]:
        """The next scales of `unfinished`, those of equal depth together; the current picture's come first."""
        before = self._history
        groups: dict[int, list[Node]] = {}
        for node in self.unfinished:
            groups.setdefault(node.generation.depth, []).append(node)
        for depth, nodes in groups.items():
            start = nodes[0].generation if len(nodes) == 1 else self._generator.restore([node.trace for node in nodes])
            rest = self._run(start, until, should_stop)
            yield from self._keep(rest, nodes=[node.id for node in nodes], seen=depth, before=before)

    def _run(self, start: Generation, until: int | None, should_stop: ShouldStop) -> Iterator[Generation]:
        return self._generator.run(start, until=until, should_stop=should_stop)

    def _continued(
        self, node: Node, from_scale: int, requests: Sequence[Request], options: ResampleOptions
    ) -> Generation:
        """A picture's scales before ``from_scale``, to be gone on with by each of the requests, alike but for seeds."""
        asked: ResampleOptions = {
            **options,
            "condition": requests[0].condition,
            "sampling": requests[0].sampling,
        }
        return self._generator.resample_many(node.trace, from_scale, [each.seed for each in requests], **asked)

    def _edited(self, start: Generation, parent: int | None, should_stop: ShouldStop) -> Iterator[Made]:
        """Pictures that are something new before any scale is drawn."""
        return self._keep(chain([start], self._run(start, None, should_stop)), parent=parent)

    def _keep(
        self,
        generations: Iterable[Generation],
        *,
        nodes: Sequence[int] = (),
        parent: int | None = None,
        seen: int = 0,
        name: str = "",
        image_space: ImageSpace | None = None,
        before: History | None = None,
    ) -> Iterator[Made]:
        """Puts each generation into the tree: in place of ``nodes``, or as new ones. One step of undo from ``before``.

        Yields the previews of scales ``seen…`` of the first image as they appear, and last those of the other images.
        """
        before = self._history if before is None else before
        try:
            for generation in generations:
                images = [generation.select([i]) for i in range(len(generation.requests))]
                tree = self.tree
                if nodes:
                    for node, image in zip(nodes, images, strict=True):
                        tree = tree.grown(node, image)
                else:
                    tree = tree.added(images, parent=parent, names=[name] * len(images), image_space=image_space)
                    nodes = [node.id for node in tree.nodes[-len(images) :]]
                # Nothing is to be undone before the first scale is there.
                self._history = before.then(tree) if self._history is before else self._history.now(tree)
                if self._autosave is not None and self._autosave.due:
                    self._make_safe()
                first = tree.node(nodes[0])
                if self.show_previews or generation.complete:
                    new = range(seen, generation.depth) if self.show_previews else [generation.depth - 1]
                    for k in new:
                        yield self._previews.of(self._generator, first, k)
                else:
                    yield Progress(first)
                seen = generation.depth
            for node in nodes[1:]:
                other = self.tree.node(node)
                yield self._previews.of(self._generator, other, other.generation.depth - 1)
        finally:  # also when it is stopped, or fails
            self._make_safe()

    def _step(self, tree: TraceTree) -> None:
        self._history = self._history.then(tree)
        self._make_safe()

    def _begin(self, model: Model, history: History) -> Model:
        """Another session's pictures in place of these."""
        if self._autosave is not None:
            if self.modified:
                self._autosave.leave()
            else:
                self._autosave.close()
        if model is not self._model:
            self._previews.clear()
        self._model, self._history, self._saved = model, history, TraceTree()
        self._make_safe()
        return model

    def _restore(self, saved: SavedSession) -> Model:
        model = self._model_of(saved.bundle_id, saved.folder)
        tree = tree_of(saved, model)
        self.panels = saved.panels
        return self._begin(model, History.of(tree))

    def _model_of(self, model: str, hint: str) -> Model:
        """The loaded model if it is that one, or else the one of the bundle where it was."""
        if self._model is not None and self._model.made(model):
            return self._model
        return self.open_model(find_bundle_of(model, [hint]).path, model)

    def _content(self) -> SavedSession:
        bundle = self._loaded.bundle
        return SavedSession.of(self.tree, self._loaded.id, bundle.name, bundle.path.absolute(), self.panels)

    def _make_safe(self) -> None:
        """Autosave, unless that has been done or there is nothing yet."""
        state = (self.tree, self.panels)
        if self._autosave is not None and self.tree.nodes and state != self._safe:
            self._autosave.write(self._content())
            if self._autosave.problem is None:
                self._safe = state


def _begun_together(one: Node, other: Node, distance: int) -> bool:
    """Whether two unfinished pictures, ``distance`` apart in the history, were asked for at once."""
    asked, also = one.trace.request, other.trace.request
    alike = (one.parent, asked.condition, asked.sampling) == (other.parent, also.condition, also.sampling)
    counted_up = also.seed == (asked.seed + distance) % (MAX_SEED + 1)
    return alike and not other.generation.complete and (counted_up or one.parent is not None)


def _numbered(request: Request, count: int) -> list[Request]:
    """The same request with ``count`` seeds, each one up."""
    if count < 1:
        raise MedvarError(f"The number of images is 1 or more, but got {count}.")
    seeds = [(request.seed + i) % (MAX_SEED + 1) for i in range(count)]
    return [Request(request.condition, seed, request.sampling) for seed in seeds]
