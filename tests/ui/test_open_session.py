"""Opening session files in the widget: they replace what is open, after a question where images would be lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import SCHEDULE, FakeModels
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from medvar_engine.conditions import Condition
from medvar_engine.generate.trace import Request
from napari_medvar import reader, settings
from napari_medvar import widget as widget_module
from napari_medvar.layers.image_layers import layer_name
from napari_medvar.menu import widget_of
from napari_medvar.session import file_content
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.session.session_file import SavedSession, read_session
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


def _drop(viewer: Any, *paths: Path) -> None:
    """Files let go over napari's canvas."""
    from qtpy.QtCore import QMimeData, QPointF, QUrl
    from qtpy.QtGui import QDropEvent
    from qtpy.QtWidgets import QApplication, QMainWindow

    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    window = next(w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow) and w.isVisible())
    central = window.centralWidget()
    canvas = next(widget for widget in (central, *central.findChildren(QWidget)) if widget.acceptDrops())
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    canvas.dropEvent(event)  # Qt hands over only drops that it has seen dragged


@pytest.fixture
def session_file(models: FakeModels, tmp_path: Path) -> Path:
    """An image, and one resampled from it."""
    session = GenerationSession(models)
    session.load()
    request = Request(Condition("CT", "abdomen", "axial"), seed=5)
    list(session.generate(request))
    list(session.resample(3, replace(request, seed=6)))
    return session.save(tmp_path / "work.medvar")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("opened", [_drop, lambda viewer, path: viewer.open(path, plugin=None)], ids=["drop", "code"])
def test_a_session_file_brings_the_session_back(
    viewer: Any,
    models: FakeModels,
    settle: Settle,
    session_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: Callable[[Any, Path], None],
) -> None:
    """Yesterday's sitting, dropped on the window, would become flat layers without a history."""
    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    monkeypatch.setattr(settings, "open_bundle", lambda name, bundle_id, device: models(name))
    opened(viewer, session_file)
    widget = widget_of(viewer)
    settle(widget)
    assert [node.trace.request.seed for node in widget.session.tree.nodes] == [5, 6]
    assert widget.sampling.seed == 6
    assert viewer.layers[layer_name(SCHEDULE, len(SCHEDULE) - 1)].visible
    widget.undo()
    settle(widget)
    assert widget.sampling.seed == 5
    widget.worker.close()


@pytest.mark.usefixtures("plugin")
def test_opening_a_session_asks_before_unsaved_images_go(
    viewer: Any, widget: MedvarWidget, settle: Settle, session_file: Path, tmp_path: Path
) -> None:
    """A file dropped by mistake would cost the afternoon's images."""
    widget.sampling.show_seed(77)
    widget.scales.generate_button.click()
    settle(widget)
    _drop(viewer, session_file)
    settle(widget)
    assert "1 unsaved image" in widget.message.text.text()
    widget.scales.step_button.click()  # the question stays
    settle(widget)
    assert widget.message.answers.isVisible()
    widget.message.decline_button.click()
    settle(widget)
    assert not widget.message.isVisible()
    assert widget.session.tree.nodes[0].trace.request.seed == 77
    _drop(viewer, session_file)
    settle(widget)
    widget.message.accept_button.click()
    settle(widget)
    assert [node.trace.request.seed for node in widget.session.tree.nodes] == [5, 6]
    widget.session.save(tmp_path / "again.medvar")
    _drop(viewer, session_file)  # nothing would be lost
    settle(widget)
    assert not widget.message.isVisible()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("unsaved", [False, True], ids=["saved", "unsaved"])
def test_the_window_reacts_while_a_session_is_read(
    viewer: Any,
    widget: MedvarWidget,
    settle: Settle,
    session_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
    unsaved: bool,
) -> None:
    """A large session would freeze the window, and take twice as long to open."""
    if unsaved:
        widget.scales.generate_button.click()
        settle(widget)
    reading, may_end, threads = threading.Event(), threading.Event(), []

    def slow(path: Path) -> SavedSession:
        threads.append(threading.current_thread())
        reading.set()
        assert may_end.wait(timeout=20)
        return read_session(path)

    monkeypatch.setattr(file_content, "read_session", slow)
    _drop(viewer, session_file)
    qtbot.waitUntil(reading.is_set, timeout=WAIT)
    assert widget.worker.running
    assert not widget.save.panel.open_session_button.isEnabled()
    may_end.set()
    settle(widget)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    assert widget.message.answers.isVisible() == unsaved
    assert len(widget.session.tree.nodes) == (1 if unsaved else 2)


@pytest.fixture
def other_file(models: FakeModels, tmp_path: Path) -> Path:
    """A session of one image."""
    session = GenerationSession(models)
    session.load()
    list(session.generate(Request(Condition("CT", "abdomen", "axial"), seed=8)))
    return session.save(tmp_path / "other.medvar")


def _seeds(widget: MedvarWidget) -> list[int]:
    return [node.trace.request.seed for node in widget.session.tree.nodes]


@pytest.mark.usefixtures("plugin")
def test_of_two_sessions_dropped_at_once_one_is_open_and_the_panel_says_which(
    viewer: Any, widget: MedvarWidget, settle: Settle, session_file: Path, other_file: Path
) -> None:
    """One would look for the images of the other file, or think that they were lost."""
    _drop(viewer, session_file, other_file)
    settle(widget)
    assert _seeds(widget) == [8]
    report = widget.save.panel.report_label
    assert report.text() == "other.medvar is open. work.medvar was closed: one session can be open at a time."
    assert report.isVisible()
    _drop(viewer, other_file)  # it is open already
    settle(widget)
    assert not report.isVisible()


@pytest.mark.usefixtures("plugin")
def test_what_was_closed_is_said_also_before_an_error(
    viewer: Any, widget: MedvarWidget, settle: Settle, session_file: Path, other_file: Path, damaged_file: Path
) -> None:
    """The error would take the place of what happened to the images."""
    _drop(viewer, session_file, other_file, damaged_file)
    settle(widget)
    assert "work.medvar was closed" in widget.save.panel.report_label.text()
    assert "damaged.medvar" in widget.message.text.text()


@pytest.mark.usefixtures("plugin")
def test_two_sessions_dropped_on_unsaved_images_are_one_question(
    viewer: Any, widget: MedvarWidget, settle: Settle, session_file: Path, other_file: Path
) -> None:
    """The answer to the second question would be about images that are not there any more."""
    widget.sampling.show_seed(77)
    widget.scales.generate_button.click()
    _drop(viewer, session_file, other_file)  # while the model is at work
    settle(widget)
    assert "1 unsaved image. Open other.medvar instead?" in widget.message.text.text()
    assert "does not open work.medvar" in widget.message.text.text()
    widget.message.decline_button.click()
    settle(widget)
    assert not widget.message.isVisible()
    assert _seeds(widget) == [77]
    _drop(viewer, session_file, other_file)
    settle(widget)
    widget.message.accept_button.click()
    settle(widget)
    assert _seeds(widget) == [8]
    assert not widget.message.isVisible()


@pytest.fixture
def damaged_file(tmp_path: Path) -> Path:
    """A session that was cut off while it was copied."""
    path = tmp_path / "damaged.medvar"
    path.write_bytes(b"\x1f\x8b\x08\x00cut off")
    return path


@pytest.fixture
def no_scan(tmp_path: Path) -> Path:
    """A file that only has the name of a scan."""
    path = tmp_path / "notes.nii.gz"
    path.write_text("no scan")
    return path


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("first", ["damaged", "good"])
@pytest.mark.parametrize("open_before", [True, False], ids=["open", "closed"])
def test_of_a_damaged_and_a_good_session_one_is_opened_and_the_error_stays(
    viewer: Any,
    models: FakeModels,
    open_widget: Callable[[], MedvarWidget],
    settle: Settle,
    session_file: Path,
    damaged_file: Path,
    no_scan: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    open_before: bool,
) -> None:
    """The error would be gone before it can be read, and one would look for the images of the other file."""
    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    monkeypatch.setattr(settings, "open_bundle", lambda name, bundle_id, device: models(name))
    if open_before:
        settle(open_widget())
    other = damaged_file.with_name("other.medvar")
    other.write_text("not even packed")
    bad = [no_scan, damaged_file, other]
    _drop(viewer, *([*bad, session_file] if first == "damaged" else [session_file, *bad]))
    widget = widget_of(viewer)
    settle(widget)
    text = widget.message.text.text()
    assert _seeds(widget) == [5, 6]
    assert widget.message.isVisible()
    assert "damaged.medvar is not a MedVAR session" in text
    assert "other.medvar is not a MedVAR session" in text
    assert "notes.nii.gz" in text or not open_before  # then it is a notification of napari
    widget.message.close_button.click()
    assert not widget.message.isVisible()
    _drop(viewer, damaged_file)
    settle(widget)
    assert widget.message.isVisible()
    widget.scales.undo_button.click()  # the user continues
    settle(widget)
    assert not widget.message.isVisible()
    widget.worker.close()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("first", ["damaged", "good"])
def test_a_damaged_session_asks_nothing_and_leaves_the_question_about_a_good_one(
    viewer: Any, widget: MedvarWidget, settle: Settle, session_file: Path, damaged_file: Path, first: str
) -> None:
    """The answer would be about the damaged file, and the good one would not be opened."""
    widget.sampling.show_seed(77)
    widget.scales.generate_button.click()
    settle(widget)
    _drop(viewer, *((damaged_file, session_file) if first == "damaged" else (session_file, damaged_file)))
    settle(widget)
    text = widget.message.text.text()
    assert "damaged.medvar is not a MedVAR session" in text
    assert "Open work.medvar instead?" in text
    assert widget.message.answers.isVisible()
    widget.message.close_button.click()
    assert widget.message.text.text().startswith("There is 1 unsaved image")  # the question stays
    widget.message.accept_button.click()
    settle(widget)
    assert _seeds(widget) == [5, 6]
    assert not widget.message.isVisible()


def test_a_session_without_a_window_becomes_layers(session_file: Path, models: FakeModels, monkeypatch: Any) -> None:
    """A script could not use what was made in the window."""
    monkeypatch.setattr(reader, "open_bundle_of", lambda *_: models(None))
    monkeypatch.setattr(reader, "_window", lambda: None)
    function = reader.get_reader(str(session_file))
    assert function is not None
    ((_, attributes, kind),) = function(str(session_file))
    assert kind == "image"
    assert attributes["name"] == "CT abdomen axial · seed 6"
