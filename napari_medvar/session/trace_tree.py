"""`TraceTree`: the images of a session and which was made from which. It is immutable, so undo is simple."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from napari_medvar.session.image_space import ImageSpace


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One image, finished or not."""

    id: int  # unique in a tree and in all trees derived from it
    trace: Trace  # created once, because the traces of its children name it as their parent
    parent: int | None = None  # id of the node that it was made from
    name: str = ""  # given by the user
    image_space: ImageSpace | None = None  # None for the image space of the model's synthetic images
    starred: bool = False  # marked by the user as a good image

    @property
    def depth(self) -> int:
        """Number of scales so far."""
        return self.trace.pyramid.depth

    @property
    def complete(self) -> bool:
        """Whether all scales are drawn."""
        return self.trace.pyramid.complete


@dataclass(frozen=True, eq=False, slots=True)
class TraceTree:
    """All nodes in the order in which they were made, and the id of the current one."""

    nodes: tuple[Node, ...] = ()
    current: int | None = None
    next_id: int = 0

    def node(self, node_id: int | None) -> Node:
        """The node with that id. Raises `MedvarError` when there is none or it was deleted."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise MedvarError(f"There is no image {node_id} in this session; it may have been deleted.")

    @property
    def current_node(self) -> Node | None:
        """The current node."""
        return None if self.current is None else self.node(self.current)

    def children(self, node_id: int | None) -> tuple[Node, ...]:
        """The nodes made from this one; for None, the nodes made from no other."""
        return tuple(node for node in self.nodes if node.parent == node_id)

    @property
    def tips(self) -> tuple[Node, ...]:
        """The nodes from which nothing has been made."""
        parents = {node.parent for node in self.nodes}
        return tuple(node for node in self.nodes if node.id not in parents)

    # -- changed trees ----------------------------------------------------------------------------------------------

    def added(
        self,
        traces: Sequence[Trace],
        *,
        parent: int | None = None,
        names: Sequence[str] = (),
        image_space: ImageSpace | None = None,
    ) -> TraceTree:
        """The tree with new images; the first becomes the current one.

        They have their parent's image space by default.
        """
        if parent is not None:
            image_space = self.node(parent).image_space
        ids = range(self.next_id, self.next_id + len(traces))
        new = tuple(
            Node(node_id, trace, parent, name, image_space)
            for node_id, trace, name in zip(ids, traces, names or [""] * len(traces), strict=True)
        )
        return TraceTree((*self.nodes, *new), self.next_id, self.next_id + len(new))

    def grown(self, node_id: int, trace: Trace) -> TraceTree:
        """The tree in which an image has more scales."""
        return self._changed(replace(self.node(node_id), trace=trace))

    def selected(self, node_id: int) -> TraceTree:
        """The tree with another current image."""
        return replace(self, current=self.node(node_id).id)

    def renamed(self, node_id: int, name: str) -> TraceTree:
        """The tree in which an image has another name."""
        return self._changed(replace(self.node(node_id), name=name))

    def with_stars(self, node_ids: Iterable[int], starred: bool) -> TraceTree:
        """The tree in which images are starred or not starred."""
        wanted = {self.node(node_id).id for node_id in node_ids}
        nodes = tuple(replace(node, starred=starred) if node.id in wanted else node for node in self.nodes)
        return replace(self, nodes=nodes)

    def deleted(self, node_id: int) -> TraceTree:
        """The tree without an image. Images made from it stay, and become children of its parent.

        If it was the current image, its parent becomes the current one, or else the newest remaining image.
        """
        gone = self.node(node_id)
        left = tuple(
            replace(node, parent=gone.parent) if node.parent == node_id else node
            for node in self.nodes
            if node.id != node_id
        )
        current = self.current
        if current == node_id:
            current = gone.parent if gone.parent is not None else left[-1].id if left else None
        return replace(self, nodes=left, current=current)

    def _changed(self, node: Node) -> TraceTree:
        return replace(self, nodes=tuple(node if old.id == node.id else old for old in self.nodes))
