"""`CandidatesController`: draws several continuations of the current image and keeps one or all."""

from __future__ import annotations

from collections.abc import Sequence

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from napari_medvar.controllers.edit_controller import EditController
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.panels.candidates_panel import CandidatesPanel
from napari_medvar.session.generation_session import Candidates
from napari_medvar.session.trace_tree import Node, TraceTree


class CandidatesController:
    """Connects the candidates panel to the session. The mask and locked scales of the edit panel apply here, too."""

    def __init__(self, workspace: Workspace, edit: EditController) -> None:
        self._workspace, self._edit = workspace, edit
        self._candidates: Candidates | None = None
        self.panel = CandidatesPanel()
        self.panel.draw.connect(self.draw)
        self.panel.pick.connect(lambda row: self._keep([row]))
        self.panel.finish_all.connect(self._keep_all)
        edit.panel.moved.connect(lambda: self.panel.show_scale(edit.scale))

    def draw(self) -> None:
        """Draw candidates from the scale at which edits begin."""
        session, k = self._workspace.session, self._edit.scale if self._workspace.session.node else 0
        self._workspace.sampling.roll()
        request, count = self._workspace.request(), self.panel.count_box.value()
        until = max(k, self.panel.until_box.value())
        try:
            options = self._edit.options() if session.node else {}
        except MedvarError as error:
            self._workspace.show_error(str(error))
            return
        self.clear()
        self._workspace.start(
            "make", lambda stop: session.candidates(k, request, count, until=until, should_stop=stop, **options)
        )

    def clear(self) -> None:
        """Remove the candidates."""
        self._candidates = None
        self.panel.clear()

    def offer(self, bundle: Bundle) -> None:
        """Adapt the panel to another model."""
        self.panel.offer_scales(len(bundle.schedule))
        self.clear()

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, Candidates):
            self._candidates = result
            self.panel.show_candidates(result.pixels, result.k)
            depth, scales = result.k + 1, len(result.generation.pyramid.schedule)
            self._workspace.work.report(depth, scales, f"candidates · {depth} of {scales} scales")

    def refresh(self, state: State) -> None:
        """Update which controls are enabled."""
        if state.idle and self._outdated:
            self.clear()
        self.panel.show_scale(self._edit.scale)
        self.panel.allow(has_image=state.idle, idle=state.idle)

    @property
    def _outdated(self) -> bool:
        """Whether the current image is neither the one that the candidates continue nor one of the candidates."""
        candidates, node = self._candidates, self._workspace.session.node
        if candidates is None or candidates.parent == (None if node is None else node.id):
            return False
        return node is None or node.trace.request not in candidates.generation.requests

    def _keep(self, images: Sequence[int]) -> None:
        """Finish the chosen candidates, except those that are in the history already."""
        candidates, session = self._candidates, self._workspace.session
        if candidates is None or not images:
            return
        kept = {image: node for image in images if (node := _kept(session.tree, candidates, image)) is not None}
        if new := [image for image in images if image not in kept]:
            self._workspace.start("make", lambda stop: session.pick(candidates, new, should_stop=stop))
        else:
            session.select(kept[images[0]].id)
            self._workspace.show_current()

    def _keep_all(self) -> None:
        if self._candidates is not None:
            self._keep(range(len(self._candidates.generation.requests)))


def _kept(tree: TraceTree, candidates: Candidates, image: int) -> Node | None:
    """The node that was made from a candidate before; found by its seed, which differs for each candidate."""
    request = candidates.generation.requests[image]
    return next((node for node in tree.children(candidates.parent) if node.trace.request == request), None)
