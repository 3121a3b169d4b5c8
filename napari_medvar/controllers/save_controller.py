"""`SaveController`: writes images, synthetic datasets and sessions to files, and opens sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medvar_engine.bundle.read import Bundle
from medvar_engine.memorisation.training_index import GATE
from medvar_engine.write.formats import ENDINGS
from medvar_engine.write.marks import Marks
from napari_medvar.controllers.history_controller import HistoryController
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.layers.scan_layers import read_scans
from napari_medvar.panels.message_panel import Question
from napari_medvar.panels.save_panel import SavePanel
from napari_medvar.session.file_content import read_file
from napari_medvar.session.previews import Preview
from napari_medvar.session.save_images import SaveOptions, SaveProgress, write_image_files, write_set
from napari_medvar.session.save_stack import StackProgress, save_stack
from napari_medvar.session.trace_tree import Node
from napari_medvar.worker import ShouldStop


@dataclass(frozen=True, slots=True)
class WouldLose:
    """A file is not opened yet, because that would remove unsaved images."""

    path: Path


@dataclass(frozen=True, slots=True)
class FileOpened:
    """A file was opened, and perhaps the session of another file closed for it."""

    opened: Path
    closed: Path | None

    @property
    def report(self) -> str:
        """Which session was closed; empty if none was, so that the report about an earlier file is cleared."""
        if self.closed is None:
            return ""
        return f"{self.opened.name} is open. {self.closed.name} was closed: one session can be open at a time."


class SaveController:
    """Connects the save panel to the session."""

    def __init__(self, workspace: Workspace, history: HistoryController) -> None:
        self._workspace, self._history = workspace, history
        self._question: Question | None = None  # whether to open a file, not answered yet
        self._waiting: list[Path] = []  # the files that were to be opened since then, the newest last
        self.panel = SavePanel(ENDINGS)
        self.panel.save.connect(self.save)
        self.panel.generate_set.connect(self.generate_set)
        self.panel.stack.generate.connect(self.generate_stack)
        self.panel.save_session.connect(self.save_session)
        self.panel.open_session.connect(self.open_session)

    def save(self) -> None:
        """Write the chosen finished images."""
        session, opened, nodes = self._workspace.session, self._workspace.session.opened, self._chosen()
        if opened is None:
            return
        if not nodes:
            self._workspace.show_error("None of the chosen images is finished. Finish one, or choose others.")
            return
        folder, form = self.panel.folder, self._form()
        finest = len(opened.bundle.schedule) - 1

        def previews() -> Iterator[Preview]:
            for node in nodes:
                yield from session.previews([finest], node=node.id)

        self._workspace.start("make", lambda stop: write_image_files(opened, nodes, previews(), folder, form))

    def generate_set(self) -> None:
        """Generate and write a synthetic dataset."""
        opened, orders = self._workspace.session.opened, self.panel.orders
        if opened is None:
            return
        if not orders:
            self._workspace.show_error("Set the number of images for at least one slice type.")
            return
        asked, folder, form = self._workspace.request(), self.panel.folder, self._form()
        self._workspace.start(
            "make", lambda stop: write_set(opened, orders, asked.sampling, asked.seed, folder, form, stop)
        )

    def generate_stack(self) -> None:
        """Generate and write a stack, and open it as a volume."""
        opened, panel = self._workspace.session.opened, self.panel.stack
        if opened is None:
            return
        asked, stack, folder = self._workspace.request(), panel.stack, self.panel.folder
        form = replace(self._form(), format=panel.format)

        def generate(stop: ShouldStop) -> Iterator[object]:
            for progress in save_stack(opened, asked, stack, folder, form, stop):
                yield progress
                if progress.path is not None:
                    yield read_scans(progress.path)

        self._workspace.start("make", generate)

    def save_session(self, path: Path) -> None:
        """Save the whole session to a file."""
        session = self._workspace.session
        self._workspace.start("compute", lambda stop: [SaveProgress(1, 1, session.save(path))])

    def open_session(self, path: Path) -> None:
        """Open a session or an image from a file; asks first if that would remove unsaved images."""
        session = self._workspace.session

        def reading() -> Iterator[object]:
            file = read_file(path)  # in the worker's thread: the window would not react while a large session is read
            if session.would_lose(file):
                yield WouldLose(path)
            else:
                yield from self._opening(path, session.open_content(file))

        self._start(path, reading)

    def _ask(self, path: Path) -> None:
        """Ask whether to open a file in place of unsaved images."""
        self._withdraw()
        count = self._workspace.session.unsaved
        unsaved = {0: "The session has unsaved changes", 1: "There is 1 unsaved image"}
        others = ", ".join(each.name for each in self._waiting if each != path)
        self._waiting.append(path)
        self._question = Question(
            f"{unsaved.get(count, f'There are {count} unsaved images')}. Open {path.name} instead?"
            + (f" One session can be open at a time, so this does not open {others}." if others else ""),
            "Open it",
            "Close these images. napari offers to restore them at the next start.",
            "Keep these",
            "Keep these images. You can save them first and open the file afterwards.",
            lambda: self._answered(path),
            lambda: self._answered(None),
        )
        self._workspace.message.ask(self._question)

    def _answered(self, path: Path | None) -> None:
        self._question = None
        self._waiting.clear()
        if path is not None:
            self._open(path)

    def _withdraw(self) -> None:
        """Remove the question whether to open an earlier file."""
        if self._question is not None:
            self._workspace.message.withdraw(self._question)

    def _open(self, path: Path) -> None:
        """Open a file, which may have changed since it was read for the question."""
        self._start(path, lambda: self._opening(path, self._workspace.session.open(path)))

    def _opening(self, path: Path, results: Iterator[object]) -> Iterator[object]:
        """Open a file. Yields the ``results`` of the session, then what was opened. The worker iterates them."""
        before = self._workspace.session.file
        yield from results
        after = self._workspace.session.file
        yield FileOpened(path, before if after != before else None)

    def _start(self, path: Path, work: Callable[[], Iterator[object]]) -> None:
        if not self._workspace.start("show", lambda stop: work()):
            self._workspace.when_idle(lambda: self.open_session(path))  # asks again: there may be more images by then

    def offer(self, bundle: Bundle) -> None:
        """Adapt the panel to another model."""
        self.panel.offer_kinds(slice_type.condition for slice_type in bundle.slice_types)
        self.panel.offer_copies(GATE in bundle.sha256)
        self.panel.stack.offer(positions=bundle.labels.position > 0)

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, SaveProgress):
            seen = result.done + len(result.withheld)
            left = self._workspace.work.time_left(seen, result.total)
            self._workspace.work.report(seen, result.total, f"{result.done} of {result.total} written", left=left)
            self.panel.report(str(result))
        elif isinstance(result, WouldLose):
            self._ask(result.path)
        elif isinstance(result, StackProgress):
            left = self._workspace.work.time_left(result.done, result.total)
            self._workspace.work.report(result.done, result.total, f"slice {result.done} of {result.total}", left=left)
            if result.path is not None:
                self.panel.report(f"Saved {result.path}")
        elif isinstance(result, FileOpened):
            self._withdraw()
            self.panel.report(result.report)

    def refresh(self, state: State) -> None:
        """Update which controls are enabled."""
        self.panel.allow(idle=state.idle, complete=state.complete, some=bool(self._workspace.session.tree.nodes))

    def _form(self) -> SaveOptions:
        marks = Marks(burned_in=self.panel.burned_in)
        return SaveOptions(self.panel.format, self.panel.copy_policy, marks, self.panel.own_source)

    def _chosen(self) -> list[Node]:
        tree = self._workspace.session.tree
        match self.panel.what:
            case "current":
                wanted = [tree.current]
            case "selected":
                wanted = [*self._history.panel.selected]
            case "starred":
                wanted = [node.id for node in tree.nodes if node.starred]
            case _:
                wanted = [node.id for node in tree.nodes]
        return [node for node in tree.nodes if node.id in wanted and node.complete]
