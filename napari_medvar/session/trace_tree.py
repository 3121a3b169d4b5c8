"""`TraceTree`: the pictures of one sitting, and which came from which. An immutable value, so undo is free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.trace import Trace
from napari_medvar.session.image_space import ImageSpace


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One picture, finished or not."""

    id: int  # never given twice in a tree and those that came from it
    generation: Generation  # of one image
    trace: Trace  # what made it: made once, for the traces of its children name it as their parent
    parent: int | None = None  # id of the node that it was made from
    name: str = ""  # given by the user
    image_space: ImageSpace | None = None  # where it lies, when that is not where the model's synthetic pictures do
    starred: bool = False  # by the user, as one of the good ones


@dataclass(frozen=True, eq=False, slots=True)
class TraceTree:
    """All nodes in the order they were made, and the id of the one being looked at."""

    nodes: tuple[Node, ...] = ()
    current: int | None = None
    next_id: int = 0

    def node(self, node_id: int | None) -> Node:
        """The node of that id. Raises `MedvarError` when it is not there, or deleted."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise MedvarError(f"There is no image {node_id} in this session; it may have been deleted.")

    @property
    def current_node(self) -> Node | None:
        """The node being looked at."""
        return None if self.current is None else self.node(self.current)

    @property
    def generation(self) -> Generation | None:
        """The current picture."""
        node = self.current_node
        return None if node is None else node.generation

    def children(self, node_id: int | None) -> tuple[Node, ...]:
        """The nodes made from this one; of None, those that were made from no other."""
        return tuple(node for node in self.nodes if node.parent == node_id)

    @property
    def tips(self) -> tuple[Node, ...]:
        """The nodes from which nothing has been made."""
        parents = {node.parent for node in self.nodes}
        return tuple(node for node in self.nodes if node.id not in parents)

    # -- changed trees ------------------------------------------------------------------------------------------

    def added(
        self,
        generations: Sequence[Generation],
        *,
        parent: int | None = None,
        names: Sequence[str] = (),
        image_space: ImageSpace | None = None,
    ) -> TraceTree:
        """The tree with more pictures, the first of which becomes the current one. They lie where their parent does."""
        if parent is not None:
            image_space = self.node(parent).image_space
        ids = range(self.next_id, self.next_id + len(generations))
        new = tuple(
            Node(node_id, generation, generation.trace(0), parent, name, image_space)
            for node_id, generation, name in zip(ids, generations, names or [""] * len(generations), strict=True)
        )
        return TraceTree((*self.nodes, *new), self.next_id, self.next_id + len(new))

    def grown(self, node_id: int, generation: Generation) -> TraceTree:
        """The tree in which that picture has more scales."""
        return self._changed(replace(self.node(node_id), generation=generation, trace=generation.trace(0)))

    def selected(self, node_id: int) -> TraceTree:
        """The tree with another current picture."""
        return replace(self, current=self.node(node_id).id)

    def renamed(self, node_id: int, name: str) -> TraceTree:
        """The tree in which that picture has another name."""
        return self._changed(replace(self.node(node_id), name=name))

    def with_stars(self, node_ids: Iterable[int], starred: bool) -> TraceTree:
        """The tree in which those pictures are starred, or are not."""
        wanted = {self.node(node_id).id for node_id in node_ids}
        nodes = tuple(replace(node, starred=starred) if node.id in wanted else node for node in self.nodes)
        return replace(self, nodes=nodes)

    def deleted(self, node_id: int) -> TraceTree:
        """The tree without that picture. What was made from it stays, and hangs on its parent.

        When it was the current one, its parent becomes it, or else the newest picture left.
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
