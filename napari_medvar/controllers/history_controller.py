"""`HistoryController`: selects, renames, deletes and compares images of the history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qtpy.compat import isalive
from qtpy.QtCore import QTimer

from medvar_engine.bundle.read import Bundle
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.layers.compare_layers import difference
from napari_medvar.panels.history_panel import HistoryEntry, HistoryPanel
from napari_medvar.session.generation_session import Preview
from napari_medvar.session.image_names import label_of, made_by
from napari_medvar.session.trace_tree import Node


@dataclass(frozen=True, eq=False, slots=True)
class Compared:
    """Two decoded images to compare."""

    first: Preview
    second: Preview


class HistoryController:
    """Connects the history panel to the session."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._tried: set[int] = set()  # images with a requested thumbnail
        self.panel = HistoryPanel(workspace.icons)
        self.panel.select.connect(self.select)
        self.panel.rename.connect(self.rename)
        self.panel.delete.connect(self.delete)
        self.panel.compare.connect(self.compare)
        self.panel.end_compare.connect(self.end_compare)
        self._removed = workspace.viewer.layers.events.removed
        self._removed.connect(self._layer_removed)  # napari keeps only a weak reference

    def select(self, node: int) -> None:
        """Make an image the current one."""
        self._workspace.session.select(node)
        self._workspace.show_current()

    def rename(self, node: int, name: str) -> None:
        """Rename an image."""
        self._workspace.session.rename(node, name)
        self._workspace.refresh()

    def delete(self, nodes: Sequence[int]) -> None:
        """Delete images."""
        current = self._workspace.session.tree.current
        self._workspace.session.delete(*nodes)
        if self._workspace.session.tree.current != current:
            self._workspace.show_current()
        self._workspace.refresh()

    def compare(self, one: int, other: int) -> None:
        """Show two images side by side."""
        session = self._workspace.session
        if not self._workspace.start("compute", lambda stop: [Compared(*session.compare(one, other))]):
            self.panel.end_comparing()

    def end_compare(self) -> None:
        """End the comparison and show the current image."""
        if self._workspace.image_view.comparison.shown:
            self._workspace.image_view.comparison.close()
            self.panel.end_comparing()
            self._workspace.refresh()

    def missing_thumbnails(self) -> Iterator[Preview]:
        """The previews of images without a thumbnail. The worker iterates them."""
        missing = [node for node in self.panel.without_thumbnail() if node not in self._tried]
        self._tried.update(missing)
        for node in missing:
            depth = self._workspace.session.tree.node(node).depth
            if depth:
                yield from self._workspace.session.previews([depth - 1], node=node)

    @property
    def lacks_thumbnails(self) -> bool:
        """Whether any image has no thumbnail."""
        return bool(set(self.panel.without_thumbnail()) - self._tried)

    def offer(self, bundle: Bundle) -> None:
        """Adapt the panel to another model, which has other images."""
        self._tried.clear()
        self._workspace.icons.clear()

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, Preview) and result.newest:
            self._workspace.icons.put(result.node.id, result.pixels)
            self.panel.show_icon(result.node.id)
        elif isinstance(result, Compared):
            images = result.first.pixels, result.second.pixels
            names = label_of(result.first.node), label_of(result.second.node)
            session = self._workspace.session
            image_spaces = session.image_space_of(result.first.node), session.image_space_of(result.second.node)
            self._workspace.image_view.comparison.show(images, names, image_spaces)
            self._workspace.work.report(1, 1, f"differ by {difference(images):.1f} % on average")

    def leave_viewer(self) -> None:
        """Disconnect from the viewer; the panel may be deleted already."""
        self._removed.disconnect(self._layer_removed)

    def refresh(self, state: State) -> None:
        """Show the tree, and update which controls are enabled."""
        tree = self._workspace.session.tree
        self.panel.show_entries([_entry(node) for node in tree.nodes], tree.current)
        self.panel.allow(idle=state.idle)

    def _layer_removed(self, event: object = None) -> None:
        """End a comparison of which the user has deleted a side, once all selected layers are deleted."""
        QTimer.singleShot(0, self._end_incomplete)

    def _end_incomplete(self) -> None:
        if isalive(self.panel) and self._workspace.image_view.comparison.incomplete:
            self.end_compare()


def _entry(node: Node) -> HistoryEntry:
    depth, scales = node.depth, len(node.trace.pyramid.schedule)
    unfinished = "" if node.complete else f" ({depth} of {scales})"
    return HistoryEntry(node.id, node.parent, label_of(node) + unfinished, about(node), node.starred)


def about(node: Node) -> str:
    """The request of an image in one or two sentences."""
    request = node.trace.request
    made = made_by(node) if node.trace.edit else "generated"
    settings = request.sampling
    coarsest = settings.at(0, len(node.trace.pyramid.schedule))
    return (
        f"{request.condition}, seed {request.seed}: {made}. "
        f"Guidance {settings.guidance:g} (at the coarsest scale {coarsest.guidance:.3g}), "
        f"temperature {settings.temperature:g}, top-k {settings.top_k}, top-p {settings.top_p:g} "
        f"(at the coarsest scale {coarsest.top_p:.3g})."
    )
