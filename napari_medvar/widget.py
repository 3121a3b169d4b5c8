"""`MedvarWidget`: the dock widget, which connects panels, session, layers and the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QKeySequence, QShowEvent
from qtpy.QtWidgets import QAbstractButton, QApplication, QPushButton, QShortcut, QSizePolicy, QVBoxLayout, QWidget

from medvar_engine.bundle.read import shipped_bundles
from medvar_engine.generate.trace import Request
from napari_medvar import keys
from napari_medvar.controllers.candidates_controller import CandidatesController
from napari_medvar.controllers.device_controller import DeviceController
from napari_medvar.controllers.edit_controller import EditController
from napari_medvar.controllers.gallery_controller import GalleryController
from napari_medvar.controllers.history_controller import HistoryController
from napari_medvar.controllers.maps_controller import MapsController
from napari_medvar.controllers.real_image_controller import RealImageController
from napari_medvar.controllers.recovery_controller import RecoveryController
from napari_medvar.controllers.save_controller import SaveController
from napari_medvar.controllers.shared_state import Doing, State
from napari_medvar.controllers.structures_controller import StructuresController
from napari_medvar.layers.gl_context import make_canvas_current
from napari_medvar.layers.image_view import ImageView
from napari_medvar.panels.bundle_panel import BundlePanel
from napari_medvar.panels.condition_panel import ConditionPanel
from napari_medvar.panels.form_rows import beside_title, fold, scroll_area, small_button
from napari_medvar.panels.help_dialog import HelpDialog
from napari_medvar.panels.icons import Icons
from napari_medvar.panels.key_label import KeyLabel
from napari_medvar.panels.message_panel import MessagePanel
from napari_medvar.panels.sampling_panel import SamplingPanel
from napari_medvar.panels.scales_panel import ScalesPanel
from napari_medvar.panels.status_panel import StatusPanel
from napari_medvar.panels.view_panel import ViewPanel
from napari_medvar.session.autosave import recoverable
from napari_medvar.session.generation_session import GenerationSession, OpenedBundle, Preview, Progress
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.settings import new_session, read_settings
from napari_medvar.work_report import WorkReport
from napari_medvar.worker import EngineWorker, Work

if TYPE_CHECKING:
    import napari

_MARGINS = (6, 4, 6, 4)  # px; the dock may be narrow
_REST = 250  # ms without movement after which a slider counts as at rest
_KEYS = {  # these work in the panel only; see `keys` for those of the whole window
    "Ctrl+Return": "generate",
    "Ctrl+.": "step",
    "Ctrl+R": "resample",
    "Ctrl+B": "flip",
    "Ctrl+Z": "undo",
    "Ctrl+Shift+Z": "redo",
    "Esc": "stop",
    "?": "help",
}


class MedvarWidget(QWidget):
    """Generate synthetic slices scale by scale, in the viewer."""

    def __init__(self, napari_viewer: napari.Viewer, session: GenerationSession | None = None) -> None:
        super().__init__()
        settings = read_settings()
        self.viewer = napari_viewer
        self.session = session or new_session(settings)
        self.worker = EngineWorker()
        self.icons = Icons()
        self.image_view = ImageView(napari_viewer)
        self._asked: str | Path | None = None  # the bundle that the user asked for
        self._loaded: str | Path | None = None  # the bundle that is open
        self._doing: Doing = "load"  # the current or last work
        self._following = True  # whether the view follows the newest scale
        self._failure = False  # whether the last work failed
        self._keeps_messages = False  # whether the messages about earlier work stay
        self._before = 0  # number of images before the work began
        self._together = self._decoded = 1  # images made at a time, and how many of them are finished
        self._when_idle: list[Callable[[], None]] = []  # calls that wait until the worker is idle

        self.bundle = BundlePanel(shipped_bundles())
        self.condition = ConditionPanel()
        self.sampling = SamplingPanel()
        self.scales = ScalesPanel()
        self.views = ViewPanel()
        self.status = StatusPanel()
        self.work = WorkReport(self, self.status)
        self.message = MessagePanel()
        self.maps = MapsController(self)
        self.edit = EditController(self)
        self.candidates = CandidatesController(self, self.edit)
        self.real = RealImageController(self)
        self.structures = StructuresController(self)
        self.history = HistoryController(self)
        self.save = SaveController(self, self.history)
        self.gallery = GalleryController(self, self.history, self.save)
        self.device = DeviceController(self, settings)
        self._recovery = RecoveryController(self, () if session else recoverable(settings.sessions))
        self._parts = (
            *(self.maps, self.edit, self.candidates, self.real, self.structures),
            *(self.history, self.save, self.gallery, self.device),
        )
        self._resting = QTimer(self)
        self._resting.setSingleShot(True)
        self._resting.setInterval(_REST)
        self._resting.timeout.connect(self.image_view.layers.select_shown)
        self._lay_out()
        self._connect()
        if settings.bundle and session is None:
            self.bundle.choose(settings.bundle if settings.bundle in shipped_bundles() else Path(settings.bundle))
        else:
            self.load(self.bundle.current)

    # -- actions of the user ------------------------------------------------------------------------------------------

    def load(self, bundle: str | Path | None) -> None:
        """Open a bundle by name or folder; None is the first shipped one."""
        self._asked = bundle
        self.start("load", lambda stop: [self.session.load(bundle)], "Loading the model…")

    def load_again(self) -> None:
        """Open the chosen bundle again."""
        self.load(self._asked)

    def reopen(self) -> None:
        """Open the chosen bundle on the device or server of the settings. Images that it made stay."""
        asked = self._asked
        self.start("load", lambda stop: [self.session.reopen(asked)], "Loading the model…")

    def generate(self) -> None:
        """Generate whole images, or the missing scales of unfinished ones."""
        request, count = self._next_request(), self.sampling.count
        self.start("make", lambda stop: self.session.generate(request, count=count, should_stop=stop))

    def step(self) -> None:
        """Generate one scale."""
        request = self._next_request()
        self.start("make", lambda stop: self.session.step(request))

    def undo(self) -> None:
        """Undo the last change."""
        self.session.undo()
        self.show_current()

    def redo(self) -> None:
        """Redo the change that was undone last."""
        self.session.redo()
        self.show_current()

    def look_at(self, k: int) -> None:
        """Show the preview of scale k."""
        depth = self.session.node.depth if self.session.node else 0
        self._following = k + 1 >= depth
        self._look()
        self._complete_view()

    def help(self, page: str = "") -> None:
        """Open the help at a page of the guide, or at the keys without one."""
        HelpDialog(self.session.opened, self, page).open()

    def start_from_layer(self) -> None:
        """Encode the active layer as an image, once the model is loaded."""
        self.when_idle(self.real.encode_active)

    def when_idle(self, action: Callable[[], None]) -> None:
        """Do something, once the worker is free: the model may still be loading.

        Earlier messages stay, because several files may be opened at once, and one of them may be damaged.
        """
        if self.worker.running:
            self._when_idle.append(action)
            return
        with self._messages_stay():
            action()

    def open_session(self, path: Path) -> None:
        """Open a session or an image that MedVAR wrote, once the worker is free; see `SaveController.open_session`."""
        self.when_idle(partial(self.save.open_session, path))

    def press(self, action: str) -> None:
        """Run the action of a key of `keys`, if its button is enabled."""
        if action in ("coarser", "finer"):
            self.scales.slider.setValue(self.scale + (1 if action == "finer" else -1))
        else:
            self.buttons[action].click()

    @property
    def busy(self) -> bool:
        """Whether any work is in progress. A slider that is not yet at rest counts as work."""
        return self.worker.running or self._resting.isActive()

    # -- the workspace of the controllers -----------------------------------------------------------------------------

    @property
    def scale(self) -> int:
        """The scale that is shown."""
        return self.scales.scale

    @property
    def image_space(self) -> ImageSpace:
        """The image space of the current image, or of a new one."""
        assert self.session.opened is not None
        node = self.session.node
        return (
            self.session.image_space_of(node)
            if node
            else ImageSpace.of(self.session.opened.bundle, self.condition.condition)
        )

    def request(self) -> Request:
        """The request that the panels describe."""
        return Request(self.condition.condition, self.sampling.seed, self.sampling.sampling)

    def start(self, doing: Doing, work: Work, text: str = "") -> bool:
        """Start work in the worker's thread. Returns False, and does nothing, when the worker is busy."""
        if self.worker.running:
            return False
        if not self._keeps_messages:
            self.message.clear()
            self.save.panel.report("")
        if doing == "make" or doing == "show":
            self.history.end_compare()
            self._following = True
        self._doing, self._together, self._decoded, self._failure = doing, 1, 1, False
        self._before = len(self.session.tree.nodes)
        self.session.panels = self._settings()
        self.work.begin(text, self.worker.stop)
        self.worker.start(work)
        self.refresh()
        return True

    def show_error(self, text: str) -> None:
        """Show an error message, instead of those about what the user did before."""
        if not self._keeps_messages:
            self.message.clear()
        self.message.show_error(text)

    def add_error(self, text: str) -> None:
        """Show an error message below those that are shown already."""
        self.message.show_error(text)

    def show_current(self) -> None:
        """Show the current image and its settings."""
        self.history.end_compare()
        current = self.session.node
        if current is None:
            self.image_view.layers.clear()
            self.scales.show_made(0)
            self._look()
            self.refresh()
            return
        self._show_settings(current.trace.request)
        self.start("show", lambda stop: self.session.previews())

    def refresh(self) -> None:
        """Update which controls are enabled."""
        running, ready, current = self.worker.running, self.session.opened is not None, self.session.node
        idle = ready and not running
        self.bundle.setEnabled(not running)
        self.condition.setEnabled(ready)
        self.sampling.setEnabled(ready)
        self.views.setEnabled(current is not None)
        self.scales.allow(
            ready=ready,
            running=running,
            stoppable=running and self._doing == "make",
            unfinished=len(self.session.unfinished) if not running and self.session.continues(self.request()) else 0,
            undo=self.session.can_undo,
            redo=self.session.can_redo,
        )
        state = State(idle, current is not None, current is not None and current.complete)
        for part in self._parts:
            part.refresh(state)

    # -- results of the worker ----------------------------------------------------------------------------------------

    def _made(self, result: object) -> None:
        """Handle one result of the worker, in the GUI thread."""
        try:
            if isinstance(result, OpenedBundle):
                self._show_bundle(result)
            for part in self._parts:
                part.take(result)
            if isinstance(result, Preview | Progress):
                self._show_made(result)
        finally:
            self.worker.acknowledge()

    def _show_bundle(self, opened: OpenedBundle) -> None:
        bundle = opened.bundle
        self._loaded = self._asked if self._doing == "load" else self._known(bundle.path)
        self.bundle.select(self._loaded)
        self.bundle.describe(opened)
        self.sampling.offer(bundle.sampling, vocabulary=bundle.vocabulary)
        self.scales.offer(bundle.schedule)
        self.condition.offer(bundle)
        for part in self._parts:
            part.offer(bundle)
        if self.session.node is None:
            self.image_view.layers.clear()
        else:
            self._show_settings(self.session.node.trace.request)
            view = self.session.panels.get("view")
            view = "image" if view == "picture" else view  # the name in older session files
            if view in self.views.known:
                self.views.show_view(view)

    def _show_made(self, made: Preview | Progress) -> None:
        if made.node.id != self.session.tree.current:
            if self._doing == "make":  # one of the images made together with the current one
                self._decoded += 1
                self.work.report(self._decoded, self._together, f"image {self._decoded} of {self._together}")
            return
        depth, scales = made.node.depth, len(made.node.trace.pyramid.schedule)
        newest = isinstance(made, Progress) or made.newest
        drawn = not self.worker.ahead  # where drawing is slower than generating, outdated previews are not drawn
        if newest:
            self.scales.show_made(depth, follow=self._following)
        if isinstance(made, Progress):
            self.image_view.layers.forget(depth - 1)
        else:
            self.image_view.show(
                made, self.session.image_space_of(made.node), reveal=drawn and self._plain and made.k == self.scale
            )
        if newest:
            new = len(self.session.tree.nodes) - self._before if self._doing == "make" else 0
            self._together = max(self._together, new, len(self.session.unfinished))
            images = f" · {self._together} images" if self._together > 1 else ""
            counts = made.node.trace.pyramid.schedule.token_counts
            # The first scales have few tokens, and nobody can tell from them how long the others take.
            left = self.work.time_left(sum(counts[:depth]), sum(counts)) if 2 * depth > scales else ""
            self.work.report(depth, scales, f"{depth} of {scales} scales{images}", left=left)
            if drawn and not self._plain:
                self._look()
            self.refresh()

    def _failed(self, message: str) -> None:
        self.message.show_error(message, loading=self._doing == "load")
        self.maps.give_up()
        self._failure = True
        if self._doing == "load":
            self.device.give_up(message)
        if self._doing == "load" and self.session.opened is not None:
            self.bundle.select(self._loaded)  # the previous bundle stays in use
            self.bundle.describe(self.session.opened)

    def _finished(self) -> None:
        self.work.end(awaited=self._doing == "make" and not self._failure)
        if self._doing == "make" and self._together > 1 and not self._failure:
            self._open_gallery()
        self.status.show_device(self.session.opened.generator.backend.info if self.session.opened else None)
        self.refresh()
        if problem := self.session.autosave_problem:
            self.add_error(problem)
        if self.session.node is not None:
            self.image_view.layers.blank_from(self.session.node.depth)
        self._look()
        if self._doing == "load" and not self._failure:
            self._recovery.begin()
        while self._when_idle and not self.worker.running:
            self.when_idle(self._when_idle.pop(0))
        if self._doing != "restore":  # a session that could not be restored now cannot be restored a moment later
            self._complete_view()

    def _complete_view(self) -> None:
        """Compute what is missing in the view, while the worker is idle."""
        if self.worker.running or self.session.opened is None:
            return
        current = self.session.node
        with self._messages_stay():
            if current is not None and (missing := self.image_view.layers.missing(current.depth)):
                self.start("restore", lambda stop: self.session.previews(missing))
            elif self.maps.wanted:
                self.maps.compute()
            elif self.history.lacks_thumbnails:
                self.start("restore", lambda stop: self.history.missing_thumbnails())

    @contextmanager
    def _messages_stay(self) -> Iterator[None]:
        """In this context, new work and errors do not remove earlier messages."""
        before, self._keeps_messages = self._keeps_messages, True
        try:
            yield
        finally:
            self._keeps_messages = before

    # -- the window ---------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent | None) -> None:  # Qt's own name
        """The window is known only now."""
        super().showEvent(event)
        make_canvas_current(self.viewer, self)

    def event(self, event: QEvent | None) -> bool:  # Qt's own name
        """Notice that the dock was closed: napari takes its widget out, and leaves it alive."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            QTimer.singleShot(0, self._taken_out)
        return super().event(event)

    def _taken_out(self) -> None:
        """End the session, unless the widget is in another dock now."""
        if self.parent() is None:
            self.worker.stop()
            self.when_idle(self._end)

    def _end(self) -> None:
        self.image_view.close()
        self.session.leave()
        self.deleteLater()

    # -- internals ----------------------------------------------------------------------------------------------------

    @property
    def _plain(self) -> bool:
        """Whether the image itself is shown, not a map."""
        return self.views.view == "image"

    def _look(self) -> None:
        """Show the scale of the slider in the chosen view."""
        node = self.session.node
        image_space = self.image_space if self.session.opened is not None else None
        if image_space is not None:
            self.views.explain(self.image_view.look(self.views.view, node, self.scale, image_space, self.maps.known))
            self._resting.start()

    def _view_chosen(self) -> None:
        self._look()
        self._complete_view()

    def _next_request(self) -> Request:
        """The request that the panels describe; with a new seed once the current image is finished."""
        current = self.session.node
        if self.sampling.fresh and current and current.complete and current.trace.request == self.request():
            self.sampling.roll()
        return self.request()

    def _show_settings(self, request: Request) -> None:
        self.condition.show_condition(request.condition)
        self.sampling.show_seed(request.seed)
        self.sampling.show_sampling(request.sampling)

    def _settings(self) -> dict[str, object]:
        """The settings of the panels, for the session file."""
        return {"view": self.views.view, "pictures": self.sampling.count}

    def _open_gallery(self) -> None:
        """Unfold the gallery, and scroll to it if it was folded."""
        if not self.folds["gallery"].isExpanded():
            self.folds["gallery"].expand()
            QTimer.singleShot(0, self._scroll_to_gallery)  # once it has its height

    def _scroll_to_gallery(self) -> None:
        self.area.ensureWidgetVisible(self.folds["gallery"], 0, 0)

    def _known(self, path: Path) -> str | Path:
        """The name of a shipped bundle, or the folder of another one."""
        return next((name for name, folder in shipped_bundles().items() if folder == path), path)

    def _connect(self) -> None:
        self.bundle.chosen.connect(self.load)
        self.condition.changed.connect(self.refresh)
        self.sampling.changed.connect(self.refresh)
        self.scales.generate.connect(self.generate)
        self.scales.step.connect(self.step)
        self.scales.stop.connect(self.worker.stop)
        self.scales.undo.connect(self.undo)
        self.scales.redo.connect(self.redo)
        self.scales.looked_at.connect(self.look_at)
        self.scales.chosen.connect(self.edit.panel.follow)
        self.views.chosen.connect(self._view_chosen)
        self.real.panel.anomaly.connect(lambda: self.views.show_view("anomaly"))
        self.message.retry.connect(self.load_again)
        self.message.open_bundle.connect(self.bundle.open)
        self.worker.made.connect(self._made)
        self.worker.failed.connect(self._failed)
        self.worker.finished.connect(self._finished)
        self.buttons: dict[str, QAbstractButton] = {
            name: getattr(self.scales, f"{name}_button") for name in ("generate", "step", "stop", "undo", "redo")
        }
        self.buttons["resample"] = self.edit.panel.resample_button
        self.buttons["flip"] = self.edit.panel.flip_button
        self.buttons["help"] = self.status.help_button
        self.status.help_button.clicked.connect(lambda: self.help())
        for key_text, name in _KEYS.items():
            shortcut = QShortcut(QKeySequence(key_text), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(self.buttons[name].click)
        keys.register(opened_in)
        shown_keys = keys.ShownKeys(
            {name: KeyLabel(each) for name, each in self.buttons.items() if isinstance(each, QPushButton)},
            {name: key for key, name in _KEYS.items()},
        )
        # The clean-up must not use the widget, which no longer exists by then.
        worker, session, app = self.worker, self.session, QApplication.instance()
        in_viewer = self.edit, self.real, self.history, self.image_view

        def close() -> None:
            if isalive(worker):  # not at the end of Python, when objects disappear in any order
                worker.close()
            for part in in_viewer:
                part.leave_viewer()
            shown_keys.close()
            session.close()
            if app is not None and isalive(app):
                app.aboutToQuit.disconnect(session.close)

        self.destroyed.connect(close)
        if app is not None:
            app.aboutToQuit.connect(session.close)

    def _lay_out(self) -> None:
        content = QWidget()
        panels = QVBoxLayout(content)
        panels.setContentsMargins(*_MARGINS)
        self.folds = {
            "edit": fold("Edit", self.edit.panel, "Change the current image from one scale on."),
            "candidates": fold("Candidates", self.candidates.panel, "Several continuations to choose from."),
            "gallery": fold("Gallery", self.gallery.panel, "All images as thumbnails: star the good ones."),
            "real": fold("Real image", self.real.panel, "Encode a real image that is open in napari."),
            "history": fold("History", self.history.panel, "All images of the session and how each was made."),
            "save": fold("Save", self.save.panel, "Save images, sessions and synthetic datasets."),
            "device": fold("Device and server", self.device.panel, "Where the model runs."),
        }
        for name, section in {"sampling": self.sampling.fold, **self.folds}.items():
            beside_title(section, small_button("?", f"Guide: {section.text()[2:]}", partial(self.help, name)))
        for panel in (self.bundle, self.condition, self.sampling, self.scales, self.views, *self.folds.values()):
            panel.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)  # scrolled, not squeezed
            panels.addWidget(panel)
        panels.addStretch(1)
        self.area = scroll = scroll_area(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*_MARGINS)
        layout.addWidget(self.message)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.save.panel.report_label)  # always visible, below the scrolled sections
        layout.addWidget(self.status)


def opened_in(viewer: napari.Viewer) -> MedvarWidget | None:
    """The widget in a viewer's window; None when it is not open."""
    for docked in viewer.window.dock_widgets.values():
        widget = getattr(docked, "__wrapped__", docked)
        if isinstance(widget, MedvarWidget):
            return widget
    return None
