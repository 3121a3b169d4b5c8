"""`History`: a tree, those before it and those undone. An immutable value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from napari_medvar.session.trace_tree import TraceTree

UNDO_STEPS = 500  # trees share their pictures, so one step costs little


@dataclass(frozen=True, eq=False, slots=True)
class History:
    """What undo and redo walk along."""

    present: TraceTree = field(default_factory=TraceTree)
    past: tuple[TraceTree, ...] = ()  # oldest first
    future: tuple[TraceTree, ...] = ()  # what redo brings back, the next one last

    @classmethod
    def of(cls, tree: TraceTree) -> History:
        """Of a tree from a file: every picture was a step, in the order in which they were made."""
        nodes, first = tree.nodes, max(0, len(tree.nodes) - UNDO_STEPS)
        return cls(
            tree,
            tuple(
                TraceTree(nodes[:count], nodes[count - 1].id if count else None, tree.next_id)
                for count in range(first, len(nodes))
            ),
        )

    def then(self, tree: TraceTree) -> History:
        """A new step; what was undone is gone."""
        return History(tree, (*self.past, self.present)[-UNDO_STEPS:])

    def now(self, tree: TraceTree) -> History:
        """The same step, gone on with; or another picture looked at, which is no step."""
        return replace(self, present=tree)

    def undone(self) -> History:
        """One step back; the same when there is none."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (*self.future, self.present))

    def redone(self) -> History:
        """One step forward again; the same when nothing was undone."""
        if not self.future:
            return self
        return History(self.future[-1], (*self.past, self.present), self.future[:-1])
