"""Candidates: several continuations of the current picture, of which one or all are kept."""

from __future__ import annotations

from collections.abc import Sequence

from medvar_engine.bundle import Bundle
from medvar_engine.errors import MedvarError
from napari_medvar.panels.candidates import CandidatesPanel
from napari_medvar.parts.desk import Desk, State
from napari_medvar.parts.edit import EditPart
from napari_medvar.session import Candidates


class CandidatesPart:
    """Wires the candidates panel. Masks and locks of the edit panel hold for candidates, too."""

    def __init__(self, desk: Desk, edit: EditPart) -> None:
        self._desk, self._edit = desk, edit
        self._candidates: Candidates | None = None
        self.panel = CandidatesPanel()
        self.panel.draw.connect(self.draw)
        self.panel.pick.connect(lambda row: self._keep([row]))
        self.panel.finish_all.connect(self._keep_all)

    def draw(self) -> None:
        """Draw them from the scale looked at on."""
        session, k = self._desk.session, self._desk.scale if self._desk.session.current else 0
        self._desk.sampling.roll()
        request, count = self._desk.request(), self.panel.count_box.value()
        until = max(k, self.panel.until_box.value())
        try:
            options = self._edit.options() if session.current else {}
        except MedvarError as error:
            self._desk.tell(str(error))
            return
        self.clear()
        self._desk.start(
            "make", lambda stop: session.candidates(k, request, count, until=until, should_stop=stop, **options)
        )

    def clear(self) -> None:
        """There are none any more."""
        self._candidates = None
        self.panel.clear()

    def offer(self, bundle: Bundle) -> None:
        """Another model."""
        self.panel.offer_scales(len(bundle.schedule))
        self.clear()

    def take(self, result: object) -> None:
        """A result of the worker."""
        if isinstance(result, Candidates):
            self._candidates = result
            self.panel.show_candidates(result.pixels, result.k)
            depth, scales = result.k + 1, len(result.generation.pyramid.schedule)
            self._desk.report_progress(depth, scales, f"candidates · {depth} of {scales} scales")

    def refresh(self, state: State) -> None:
        """Enable what can be done now."""
        self.panel.show_scale(state.scale)
        self.panel.allow(picture=state.idle, idle=state.idle)

    def _keep(self, images: Sequence[int]) -> None:
        candidates, session = self._candidates, self._desk.session
        if candidates is not None and images:
            self._desk.start("make", lambda stop: session.pick(candidates, images, should_stop=stop))

    def _keep_all(self) -> None:
        if self._candidates is not None:
            self._keep(range(len(self._candidates.generation.requests)))
