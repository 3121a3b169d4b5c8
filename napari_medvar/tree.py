"""`TraceTree`: the pictures of one sitting, and which came from which. An immutable value, so undo is free."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medvar_engine.generation import Generation


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One picture, finished or not."""

    generation: Generation  # of one image
    parent: int | None  # index of the node that it was resampled from


@dataclass(frozen=True, eq=False, slots=True)
class TraceTree:
    """All nodes in the order they were made, and the one being looked at."""

    nodes: tuple[Node, ...] = ()
    current: int | None = None

    @property
    def generation(self) -> Generation | None:
        """The current picture."""
        return None if self.current is None else self.nodes[self.current].generation

    def added(self, generation: Generation, *, parent: int | None = None) -> TraceTree:
        """The tree with one more picture, which becomes the current one."""
        return TraceTree((*self.nodes, Node(generation, parent)), len(self.nodes))

    def grown(self, generation: Generation) -> TraceTree:
        """The tree whose current picture has more scales."""
        if self.current is None:
            raise ValueError("there is no current picture to grow")
        node = replace(self.nodes[self.current], generation=generation)
        return replace(self, nodes=(*self.nodes[: self.current], node, *self.nodes[self.current + 1 :]))
