"""`MedvarWidget`: the dock widget. It wires panels, session, layers and the worker together, and does nothing else."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from medvar_engine.bundle import shipped_bundles
from medvar_engine.trace import Request
from napari_medvar.gl_context import CanvasContextGuard
from napari_medvar.layers import Display, ScaleLayers
from napari_medvar.panels.bundle import BundlePanel
from napari_medvar.panels.condition import ConditionPanel
from napari_medvar.panels.message import MessagePanel
from napari_medvar.panels.sampling import SamplingPanel
from napari_medvar.panels.scales import ScalesPanel
from napari_medvar.panels.status import StatusPanel
from napari_medvar.session import GenerationSession, Model, Preview
from napari_medvar.worker import EngineWorker, Work

if TYPE_CHECKING:
    import napari

Doing = Literal["load", "make", "show", "restore"]
_SCROLL_BAR = 18  # px that one may take from the width


class MedvarWidget(QWidget):
    """Generate synthetic slices scale by scale, in the viewer."""

    def __init__(self, napari_viewer: napari.Viewer, session: GenerationSession | None = None) -> None:
        super().__init__()
        self.session = session or GenerationSession()
        self.worker = EngineWorker()
        self.layers = ScaleLayers(napari_viewer)
        self._guard = CanvasContextGuard(napari_viewer, self)
        self._asked: str | Path | None = None  # the bundle that the user wants
        self._loaded: str | Path | None = None  # the one that is there
        self._doing: Doing = "load"  # what the worker does now or did last
        self._following = True  # whether the view goes along with the newest scale
        self._began = 0.0

        self.bundle = BundlePanel(shipped_bundles())
        self.condition = ConditionPanel()
        self.sampling = SamplingPanel()
        self.scales = ScalesPanel()
        self.status = StatusPanel()
        self.message = MessagePanel()
        self._lay_out()
        self._connect()
        self.load(self.bundle.current)

    # -- what the user asks for ---------------------------------------------------------------------------------

    def load(self, bundle: str | Path | None) -> None:
        """Open a bundle; None is the first shipped one."""
        self._asked = bundle
        if self._start("load", lambda stop: [self.session.load(bundle)]):
            self.status.show_busy("Loading the model…")

    def generate(self) -> None:
        """Make a whole picture, or what is missing of an unfinished one."""
        request = self._next_request()
        self._start("make", lambda stop: self.session.generate(request, should_stop=stop))

    def step(self) -> None:
        """Make one scale."""
        request = self._next_request()
        self._start("make", lambda stop: self.session.step(request))

    def resample(self, from_scale: int) -> None:
        """Draw the current picture anew from a scale on, with a new seed."""
        self.sampling.roll()
        request = self._request()
        self._start("make", lambda stop: self.session.resample(from_scale, request, should_stop=stop))

    def undo(self) -> None:
        """Back to the picture before."""
        self.session.undo()
        self._show_current()

    def redo(self) -> None:
        """Forward again."""
        self.session.redo()
        self._show_current()

    def look_at(self, k: int) -> None:
        """Show the picture as it was after scale k."""
        depth = self.session.current.depth if self.session.current else 0
        self._following = k + 1 >= depth
        self.layers.show_only(k)
        if not self.worker.running:
            self._restore_deleted()

    # -- what the engine answers --------------------------------------------------------------------------------

    def _made(self, result: object) -> None:
        """In the GUI thread, one result at a time."""
        try:
            if isinstance(result, Model):
                self._show_model(result)
            elif isinstance(result, Preview):
                self._show_preview(result)
        finally:
            self.worker.acknowledge()

    def _show_model(self, model: Model) -> None:
        bundle = model.bundle
        self._loaded = self._asked
        self.bundle.describe(bundle)
        self.sampling.offer(bundle.sampling, vocabulary=bundle.vocabulary)
        self.scales.offer(bundle.schedule)
        self.condition.offer(bundle)

    def _show_preview(self, preview: Preview) -> None:
        if self.session.model is None:
            return
        bundle, depth = self.session.model.bundle, preview.generation.depth
        display = Display.of(bundle, preview.generation.requests[0].condition)
        if preview.newest:
            self.scales.show_made(depth, follow=self._following)
        self.layers.show(preview, display, reveal=preview.k == self.scales.scale)
        if preview.newest:
            scales, seconds = len(bundle.schedule), perf_counter() - self._began
            self.status.show_progress(depth, scales, f"{depth} of {scales} scales · {seconds:.1f} s")
            self._refresh()

    def _failed(self, message: str) -> None:
        self.message.show_error(message, loading=self._doing == "load")
        if self._doing == "load" and self.session.model is not None:
            self.bundle.select(self._loaded)  # the one before goes on working

    def _finished(self) -> None:
        self.status.end_busy()
        self.status.show_device(self.session.model.generator.backend.info if self.session.model else None)
        self._refresh()
        if self._doing != "restore":  # what could not be restored now will not be a moment later
            self._restore_deleted()

    # -- how ----------------------------------------------------------------------------------------------------

    def _start(self, doing: Doing, work: Work) -> bool:
        """Hand work to the worker. Whether it was free."""
        if self.worker.running:
            return False
        self._doing, self._following, self._began = doing, doing != "restore", perf_counter()
        self.message.clear()
        self.worker.start(work)
        self._refresh()
        return True

    def _request(self) -> Request:
        return Request(self.condition.condition, self.sampling.seed, self.sampling.sampling)

    def _next_request(self) -> Request:
        """What the panels ask for; once that picture is finished, the same with a new seed."""
        current = self.session.current
        if self.sampling.fresh and current and current.complete and current.requests[0] == self._request():
            self.sampling.roll()
        return self._request()

    def _show_current(self) -> None:
        """The current picture and its settings, after going back to it."""
        current = self.session.current
        if current is None:
            self.layers.clear()
            self.scales.show_made(0)
            self._refresh()
            return
        request = current.requests[0]
        self.condition.show_condition(request.condition)
        self.sampling.show_seed(request.seed)
        self.sampling.show_sampling(request.sampling)
        self._start("show", lambda stop: self.session.previews())

    def _restore_deleted(self) -> None:
        """Make the layers again that the user deleted."""
        current = self.session.current
        if current is not None and (missing := self.layers.missing(current.depth)):
            self._start("restore", lambda stop: self.session.previews(missing))

    def _refresh(self) -> None:
        """Enable what can be done now."""
        running, ready = self.worker.running, self.session.model is not None
        self.bundle.setEnabled(not running)
        self.condition.setEnabled(ready)
        self.sampling.setEnabled(ready)
        self.scales.allow(
            ready=ready,
            running=running,
            stoppable=running and self._doing == "make",
            unfinished=self.session.continues(self._request()),
            undo=self.session.can_undo,
            redo=self.session.can_redo,
        )

    def _connect(self) -> None:
        self.bundle.chosen.connect(self.load)
        self.condition.changed.connect(self._refresh)
        self.sampling.changed.connect(self._refresh)
        self.scales.generate.connect(self.generate)
        self.scales.step.connect(self.step)
        self.scales.stop.connect(self.worker.stop)
        self.scales.resample.connect(self.resample)
        self.scales.undo.connect(self.undo)
        self.scales.redo.connect(self.redo)
        self.scales.looked_at.connect(self.look_at)
        self.message.retry.connect(self._load_again)
        self.message.open_bundle.connect(self.bundle.open)
        self.worker.made.connect(self._made)
        self.worker.failed.connect(self._failed)
        self.worker.finished.connect(self._finished)
        self.destroyed.connect(self.worker.close)

    def _load_again(self) -> None:
        self.load(self._asked)

    def _lay_out(self) -> None:
        content = QWidget()
        panels = QVBoxLayout(content)
        for panel in (self.bundle, self.condition, self.sampling, self.scales):
            panels.addWidget(panel)
        panels.addStretch(1)
        scroll = QScrollArea()  # panels will be more, and screens small
        scroll.setWidget(content)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setMinimumWidth(content.minimumSizeHint().width() + _SCROLL_BAR)
        layout = QVBoxLayout(self)
        layout.addWidget(self.message)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.status)
