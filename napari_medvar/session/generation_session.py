"""`GenerationSession`: a model and the images made with it. It uses neither Qt nor napari.

One thread at a time calls its methods. Its properties are immutable values that other threads may read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from medvar_engine.backends.release_memory import give_back
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
from napari_medvar.session.autosave import Autosave, Recoverable
from napari_medvar.session.file_content import FileContent, read_file
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.opened_bundle import OpenedBundle, find_bundle_of, open_bundle
from napari_medvar.session.previews import Candidates, Preview, Previews, Progress
from napari_medvar.session.session_file import SavedSession, read_session, tree_of, write_session
from napari_medvar.session.trace_tree import Node, TraceTree
from napari_medvar.session.undo_history import History

__all__ = [
    "Candidates",
    "GenerationSession",
    "Made",
    "OpenedBundle",
    "Preview",
    "Progress",
    "ShouldStop",
    "open_bundle",
]

Made = Preview | Progress
OpenBundle = Callable[[str | Path | None, str | None], OpenedBundle]
"""A function that opens a bundle by its name or folder. The optional second argument is the id that traces name."""
ShouldStop = Callable[[], bool] | None


class GenerationSession:
    """Generates images scale by scale, and keeps them in a tree with undo, session files and recovery after crashes.

    Methods that generate images return iterators, which work while they are iterated; ``should_stop`` is called before
    each scale. Each call is one step of undo. ``opener`` opens bundles; tests pass their own function.
    Without ``show_previews`` only finished images are decoded; a `Progress` is yielded for each earlier scale.
    """

    def __init__(
        self,
        opener: OpenBundle | None = None,
        *,
        autosave: Autosave | None = None,
        show_previews: bool = True,
    ) -> None:
        self.panels: Mapping[str, Any] = {}  # settings of the panels as plain JSON values, saved with the session
        self.show_previews = show_previews
        self.open_bundle = opener or open_bundle
        self._opened: OpenedBundle | None = None
        self._history = History()
        self._previews = Previews()
        self._autosave = autosave
        self._safe: tuple[TraceTree, Mapping[str, Any]] | None = None  # what the autosave file contains
        self._saved = TraceTree()  # what the user's file contains
        self._file: Path | None = None

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def opened(self) -> OpenedBundle | None:
        """The loaded model."""
        return self._opened

    @property
    def tree(self) -> TraceTree:
        """All images made with this model."""
        return self._history.present

    @property
    def node(self) -> Node | None:
        """The current node."""
        return self.tree.current_node

    @property
    def trace(self) -> Trace | None:
        """The trace of the current image."""
        return None if self.node is None else self.node.trace

    @property
    def modified(self) -> bool:
        """Whether there are images that are in no file of the user's."""
        return bool(self.tree.nodes) and self.tree.nodes is not self._saved.nodes

    @property
    def file(self) -> Path | None:
        """The user's file that this session was opened from or saved to last."""
        return self._file

    @property
    def unsaved(self) -> int:
        """The number of images that are in no file of the user's as they are now."""
        saved = set(map(id, self._saved.nodes))  # nodes are never changed, only replaced
        return sum(id(node) not in saved for node in self.tree.nodes)

    @property
    def autosave_problem(self) -> str | None:
        """Why the autosave failed, as a message for users; None if it did not."""
        return None if self._autosave is None else self._autosave.problem

    def continues(self, request: Request) -> bool:
        """Whether ``request`` asks for the rest of the current, unfinished image."""
        return self.node is not None and not self.node.complete and self.node.trace.request == request

    # -- making images ----------------------------------------------------------------------------------------------

    def load(self, name: str | Path | None = None) -> OpenedBundle:
        """Open a bundle and begin with no images.

        Images of the previous model leave the session, because another model cannot continue them. Those in no file of
        the user's stay in the autosave file, which `recoverable` finds. Raises `MedvarError` if the bundle cannot be
        opened.
        """
        return self._begin(self.open_bundle(name, None), History())

    def reopen(self, name: str | Path | None = None) -> OpenedBundle:
        """`load`, but the images stay if the model is the same, e.g. on another device or on a server."""
        before, opened = self._opened, self.open_bundle(name, None)
        if before is None or not opened.made(before.id):
            return self._begin(opened, History())
        self._previews.clear()
        self._opened = opened
        return opened

    def generate(
        self, request: Request, *, count: int = 1, until: int | None = None, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """Generate images up to scale ``until`` (the finest by default), and yield the preview of each scale.

        If the current image is unfinished and belongs to the same request, it is continued, together with those that
        were begun with it. Otherwise ``count`` new images are made, with seeds that count up by one. The first becomes
        the current image; its previews are yielded scale by scale, and those of the others at the end.
        """
        if self.continues(request):
            return self._continue_unfinished(until, should_stop)
        return self._keep(self._run(self._generator.start(_numbered(request, count)), until, should_stop))

    def step(self, request: Request) -> Iterator[Made]:
        """Generate one scale: the next of the current image, or the first of a new one; see `generate`."""
        depth = self.node.depth if self.node is not None and self.continues(request) else 0
        return self.generate(request, until=depth)

    def resample(
        self, from_scale: int, request: Request, *, should_stop: ShouldStop = None, **options: Unpack[ResampleOptions]
    ) -> Iterator[Made]:
        """Make a new image that shares scales ``0…from_scale-1`` with the current one; finer scales follow ``request``.

        ``options`` are those of `ResampleOptions`: a mask, locked scales, and whether pixels outside the mask stay
        exact.
        """
        node = self._looked_at("resample")
        start = self._continued(node, from_scale, [request], options)
        return self._keep(self._run(start, None, should_stop), parent=node.id, seen=from_scale)

    def graft(self, scale: int, *, coarse: int, fine: int, should_stop: ShouldStop = None) -> Iterator[Made]:
        """Combine scales ``0…scale-1`` of node ``coarse`` with the others of node ``fine``, as a child of ``fine``."""
        edit = Graft(scale, self.tree.node(coarse).trace)
        return self._edited(self._generator.edit(self.tree.node(fine).trace, edit), fine, should_stop)

    def replace_tokens(
        self, scale: int, where: BoolArray, tokens: IntArray, *, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """Replace tokens of the current image ``where`` that is true, and draw finer scales again.

        ``where`` and ``tokens`` are ``(side, side)``, as the token map of ``scale``.
        """
        node = self._looked_at("edit")
        return self._edited(self._generator.edit(node.trace, Replace(scale, where, tokens)), node.id, should_stop)

    def start_from_image(
        self, image: FloatArray, condition: Condition, *, name: str = "", image_space: ImageSpace | None = None
    ) -> Iterator[Made]:
        """Encode a real image ``(H, W)``, harmonised to [-1, 1], as a node. Its finest preview is its reconstruction.

        Resampling that node from a scale varies the image from that scale on, in the same ``image_space``.
        """
        start = self._generator.encode(image[np.newaxis], [Request(condition)])
        return self._keep([start], name=name, image_space=image_space)

    def draw_to_mask(
        self, request: Request, mask: MaskArray, *, count: int = 1, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """Generate ``count`` new images for a given mask ``(H, W)``; otherwise as `generate`."""
        start = self._generator.from_masks(np.stack([mask] * count), _numbered(request, count))
        return self._keep(self._run(start, None, should_stop))

    def redraw_to_mask(
        self, from_scale: int, request: Request, mask: MaskArray, *, should_stop: ShouldStop = None
    ) -> Iterator[Made]:
        """Regenerate the current image from a scale on, with another mask ``(H, W)``, as a child of the image."""
        node, generator = self._looked_at("draw again"), self._generator
        if not node.complete:
            raise MedvarError("Another mask needs a finished image: make its other scales first.")
        # The encoded image has no ancestors, so it must itself record whether one of the node's ancestors is a real
        # image.
        image, real = generator.image(self._generation(node)), node.trace.of_real_image
        source = generator.encode(image, [request], mask[np.newaxis], real=real).trace(0)
        kept = generator.backend.info.mask_scales
        start = generator.resample(
            source, from_scale, seed=request.seed, condition=request.condition, sampling=request.sampling, keep=kept
        )
        return self._edited(start, node.id, should_stop)  # all its scales are new, also those before from_scale

    def image_space_of(self, node: Node) -> ImageSpace:
        """The image space of a node: the meaning of its pixels and their position."""
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
        """Draw ``count`` continuations of the current image from ``from_scale`` to ``until`` (the finest by default).

        Seeds count up by one from ``request.seed``; ``options`` are as in `resample`. Without a current image, the
        candidates are new images. Nothing is added to the session before `pick`.
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
        """Finish the candidates with the indices ``images`` and add them; the first becomes the current image."""
        return self._edited(candidates.generation.select(images), candidates.parent, should_stop)

    # -- previews and maps ------------------------------------------------------------------------------------------

    def previews(self, scales: Iterable[int] | None = None, *, node: int | None = None) -> Iterator[Preview]:
        """Previews of the finished scales among ``scales`` (all by default), the finest first.

        They show the current image, or that of another ``node``.
        """
        shown = self.node if node is None else self.tree.node(node)
        if shown is not None:
            for k in reversed(range(shown.depth) if scales is None else sorted(scales)):
                yield self._previews.of(self._generator, shown, k)

    def compare(self, one: int, other: int, k: int | None = None) -> tuple[Preview, Preview]:
        """The previews of scale ``k`` of two nodes; by default of the finest scale that both have."""
        first, second = self.tree.node(one), self.tree.node(other)
        shared = min(first.depth, second.depth) - 1 if k is None else k
        return self._previews.of(self._generator, first, shared), self._previews.of(self._generator, second, shared)

    def entropy_maps(self) -> tuple[FloatArray, ...]:
        """The entropy of each token in bits, ``(side, side)`` for each scale. Empty for a real image."""
        return self._looked_at("map").trace.entropy

    def likelihood_maps(self) -> tuple[FloatArray, ...]:
        """The negative log-likelihood of each token of the current image in bits, ``(side, side)`` for each scale."""
        generation = self._generation(self._looked_at("map"))
        return tuple(scale[0] for scale in self._generator.likelihood(generation))

    def anomaly_map(self) -> FloatArray:
        """The anomaly map of the current image ``(H, W)``: the negative log-likelihood over its pixels, in bits."""
        return self._generator.anomaly_map(self._generation(self._looked_at("map")))[0]

    def token_previews(self, scale: int, row: int, column: int, tokens: Sequence[int]) -> FloatArray:
        """Previews ``(N, H, W)`` of a scale of the current image, with each of N ``tokens`` at one row and column."""
        return self._generator.token_previews(self._looked_at("edit").trace, scale, row, column, tokens)

    def nearby_tokens(self, scale: int, token: int, count: int) -> IntArray:
        """The ``count`` tokens of a scale that are most similar to ``token``, with ``token`` itself first.

        Raises `MedvarError` when the bundle has no codebook.
        """
        codebook = self._generator.backend.codebook
        if codebook is None:
            raise MedvarError(
                "This model has no codebook, so similar tokens cannot be found. Export it again with `medvar export`."
            )
        return nearest_codes(codes_of_scale(codebook, scale), token, count)[0]

    # -- the tree ---------------------------------------------------------------------------------------------------

    def select(self, node: int) -> None:
        """Make another image the current one. This is no step of undo."""
        self._history = self._history.now(self.tree.selected(node))
        self._make_safe()

    def rename(self, node: int, name: str) -> None:
        """Name an image."""
        self._step(self.tree.renamed(node, name))

    def star(self, nodes: Iterable[int], *, starred: bool) -> None:
        """Star images, or remove their stars."""
        self._step(self.tree.with_stars(nodes, starred))

    def delete(self, *nodes: int) -> None:
        """Delete images, in one step of undo. Images made from them stay, and become children of their parents."""
        tree = self.tree
        for node in nodes:
            tree = tree.deleted(node)
        self._step(tree)

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._history.past)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._history.future)

    def undo(self) -> None:
        """Undo the newest change."""
        self._history = self._history.undone()
        self._make_safe()

    def redo(self) -> None:
        """Redo the change that was undone last."""
        self._history = self._history.redone()
        self._make_safe()

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> Path:
        """Write all images and ``panels`` as ``*.medvar``, without undone or deleted images. Returns the path.

        Raises `MedvarError` when there is nothing to save or the file cannot be written.
        """
        if not self.tree.nodes:
            raise MedvarError("There is nothing to save yet: generate an image first.")
        write_session(path, self._content())
        self._saved, self._file = self.tree, path
        return path

    def would_lose(self, file: FileContent) -> bool:
        """Whether `open_content` would remove images that are in no file of the user's."""
        if isinstance(file.content, SavedSession):
            return self.modified
        return self.modified and not self._loaded.made(file.content.bundle_id)

    def open(self, path: Path) -> Iterator[OpenedBundle | Preview]:
        """Read a file and open its content; see `open_content`. Raises `MedvarError` for a damaged file too."""
        yield from self.open_content(read_file(path))

    def open_content(self, file: FileContent) -> Iterator[OpenedBundle | Preview]:
        """Replace this session by a saved one, or add an image that medvar wrote as a new node.

        Opens the bundle that made it. Yields the model, then the previews of the current image, the finest first.
        Raises `MedvarError` when the model cannot be found.
        """
        if isinstance(file.content, SavedSession):
            yield self._restore(file.content)
            self._saved, self._file = self.tree, file.path
        else:
            trace = file.content
            opened = self._bundle_of(trace.bundle_id, "")
            if opened is not self._opened:
                self._begin(opened, History())
            yield opened
            self._previews.keep(trace, opened.generator.restore([trace]))
            self._step(self.tree.added([trace], names=[file.path.name]))
        yield from self.previews()

    def recover(self, crashed: Recoverable) -> Iterator[OpenedBundle | Preview]:
        """Replace this session by one left by a crash. Its file is deleted once this session has been autosaved."""
        yield self._restore(read_session(crashed.path))
        if self._autosave is not None and self._autosave.problem is None:
            crashed.discard()
        yield from self.previews()

    def close(self) -> None:
        """End the session; nothing needs to be recovered afterwards."""
        if self._autosave is not None:
            self._autosave.close()

    def leave(self) -> None:
        """End the session. Images that are in no file of the user's can be restored, as after a crash."""
        if self._autosave is not None:
            if self.modified:
                self._autosave.leave()
            else:
                self._autosave.close()

    # -- internals --------------------------------------------------------------------------------------------------

    @property
    def _generator(self) -> Generator:
        return self._loaded.generator

    @property
    def _loaded(self) -> OpenedBundle:
        if self._opened is None:
            raise MedvarError("No model is loaded yet: choose one first.")
        return self._opened

    def _looked_at(self, to: str) -> Node:
        if self.node is None:
            raise MedvarError(f"There is no image to {to} yet: generate one first.")
        return self.node

    @property
    def unfinished(self) -> tuple[Node, ...]:
        """The current image, if it is unfinished, and those begun together with it, which differ only in their seeds.

        They are neighbours in the history, because they were added together.
        """
        tree = self.tree  # read once: another thread may change the session
        node, nodes = tree.current_node, tree.nodes
        if node is None or node.complete:
            return ()
        place = nodes.index(node)
        alike = [_begun_together(node, other, i - place) for i, other in enumerate(nodes)]
        first = last = place
        while first > 0 and alike[first - 1]:
            first -= 1
        while last + 1 < len(nodes) and alike[last + 1]:
            last += 1
        return (node, *(other for other in nodes[first : last + 1] if other is not node))

    def _continue_unfinished(self, until: int | None, should_stop: ShouldStop) -> Iterator[Made]:
        """The next scales of `unfinished` images; those with equally many scales together, the current image first."""
        before = self._history
        groups: dict[int, list[Node]] = {}
        for node in self.unfinished:
            groups.setdefault(node.depth, []).append(node)
        for depth, nodes in groups.items():
            alone = len(nodes) == 1
            start = self._generation(nodes[0]) if alone else self._generator.restore([node.trace for node in nodes])
            rest = self._run(start, until, should_stop)
            yield from self._keep(rest, nodes=[node.id for node in nodes], seen=depth, before=before)

    def _generation(self, node: Node) -> Generation:
        return self._previews.generation(self._generator, node.trace)

    def _run(self, start: Generation, until: int | None, should_stop: ShouldStop) -> Iterator[Generation]:
        return self._generator.run(start, until=until, should_stop=should_stop)

    def _continued(
        self, node: Node, from_scale: int, requests: Sequence[Request], options: ResampleOptions
    ) -> Generation:
        """The scales of an image before ``from_scale``, to be continued by each request; they differ only in seeds."""
        asked: ResampleOptions = {
            **options,
            "condition": requests[0].condition,
            "sampling": requests[0].sampling,
        }
        return self._generator.resample_many(node.trace, from_scale, [each.seed for each in requests], **asked)

    def _edited(self, start: Generation, parent: int | None, should_stop: ShouldStop) -> Iterator[Made]:
        """Add images that are new before any scale is drawn, such as mixed ones, and finish them."""
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
        """Put each generation into the tree, in place of ``nodes`` or as a new node: one step of undo from ``before``.

        Yields the previews of scales ``seen…`` of the first image as they are made, and at the end those of the others.
        """
        before = self._history if before is None else before
        try:
            for generation in generations:
                traces = generation.traces
                for i, trace in reversed(tuple(enumerate(traces))):  # the first is looked at, and kept the longest
                    self._previews.keep(trace, generation.select([i]))
                tree = self.tree
                if nodes:
                    for node, trace in zip(nodes, traces, strict=True):
                        tree = tree.grown(node, trace)
                else:
                    tree = tree.added(traces, parent=parent, names=[name] * len(traces), image_space=image_space)
                    nodes = [node.id for node in tree.nodes[-len(traces) :]]
                # There is nothing to undo before the first scale is made.
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
                yield self._previews.of(self._generator, other, other.depth - 1)
        finally:  # also when it is stopped or fails
            self._make_safe()
            give_back()  # or free memory in fragments would grow by some MB with every image

    def _step(self, tree: TraceTree) -> None:
        self._history = self._history.then(tree)
        self._make_safe()

    def _begin(self, opened: OpenedBundle, history: History) -> OpenedBundle:
        """Replace the images by those of another session."""
        self.leave()
        if opened is not self._opened:
            self._previews.clear()
        self._opened, self._history, self._saved, self._file = opened, history, TraceTree(), None
        self._make_safe()
        return opened

    def _restore(self, saved: SavedSession) -> OpenedBundle:
        opened = self._bundle_of(saved.bundle_id, saved.folder)
        tree = tree_of(saved, opened)
        self.panels = saved.panels
        return self._begin(opened, History.of(tree))

    def _bundle_of(self, bundle_id: str, hint: str) -> OpenedBundle:
        """The loaded bundle if it has the id ``bundle_id``; otherwise that of the bundle at ``hint``."""
        if self._opened is not None and self._opened.made(bundle_id):
            return self._opened
        return self.open_bundle(find_bundle_of(bundle_id, [hint]).path, bundle_id)

    def _content(self) -> SavedSession:
        bundle = self._loaded.bundle
        return SavedSession.of(self.tree, self._loaded.id, bundle.name, bundle.path.absolute(), self.panels)

    def _make_safe(self) -> None:
        """Autosave, unless nothing has changed or there are no images yet."""
        state = (self.tree, self.panels)
        if self._autosave is not None and self.tree.nodes and state != self._safe:
            self._autosave.write(self._content())
            if self._autosave.problem is None:
                self._safe = state


def _begun_together(one: Node, other: Node, distance: int) -> bool:
    """Whether two unfinished images, ``distance`` apart in the history, were requested together."""
    asked, also = one.trace.request, other.trace.request
    alike = (one.parent, asked.condition, asked.sampling) == (other.parent, also.condition, also.sampling)
    counted_up = also.seed == (asked.seed + distance) % (MAX_SEED + 1)
    return alike and not other.complete and (counted_up or one.parent is not None)


def _numbered(request: Request, count: int) -> list[Request]:
    """``count`` copies of the request, with seeds that count up by one."""
    if count < 1:
        raise MedvarError(f"The number of images must be 1 or more, but is {count}.")
    seeds = [(request.seed + i) % (MAX_SEED + 1) for i in range(count)]
    return [Request(request.condition, seed, request.sampling) for seed in seeds]
