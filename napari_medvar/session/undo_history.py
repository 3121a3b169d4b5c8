"""`History`: the present tree, the trees before it and the undone trees. It is immutable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from napari_medvar.session.trace_tree import TraceTree

UNDO_STEPS = 500  # trees share their images, so a step needs little memory


@dataclass(frozen=True, eq=False, slots=True)
class History:
    """The trees that undo and redo move through."""

    present: TraceTree = field(default_factory=TraceTree)
    past: tuple[TraceTree, ...] = ()  # oldest first
    future: tuple[TraceTree, ...] = ()  # what redo restores, the next one last

    @classmethod
    def of(cls, tree: TraceTree) -> History:
        """The history of a tree from a file, with one step for each image in the order in which they were made."""
        nodes, first = tree.nodes, max(0, len(tree.nodes) - UNDO_STEPS)
        return cls(
            tree,
            tuple(
                TraceTree(nodes[:count], nodes[count - 1].id if count else None, tree.next_id)
                for count in range(first, len(nodes))
            ),
        )

    def then(self, tree: TraceTree) -> History:
        """The history with a new step; undone trees are dropped."""
        return History(tree, (*self.past, self.present)[-UNDO_STEPS:])

    def now(self, tree: TraceTree) -> History:
        """The history with the present tree replaced, without a new step."""
        return replace(self, present=tree)

    def undone(self) -> History:
        """The history one step back; unchanged when there is none."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (*self.future, self.present))

    def redone(self) -> History:
        """The history one step forward; unchanged when nothing was undone."""
        if not self.future:
            return self
        return History(self.future[-1], (*self.past, self.present), self.future[:-1])
