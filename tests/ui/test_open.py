"""Opening the widget, with and without a model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import SCHEDULE, FakeModels, make_bundle
from npe2 import PluginManifest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QFileDialog, QWidget

import napari_medvar
from medvar_engine.bundle.read import shipped_bundles
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Request
from medvar_engine.value_range import Display
from napari_medvar import reader, settings
from napari_medvar import widget as widget_module
from napari_medvar.layers.image_layers import layer_name
from napari_medvar.menu import widget_of
from napari_medvar.session import file_content
from napari_medvar.session.autosave import Autosave
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.session.session_file import SavedSession, read_session
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


@pytest.fixture
def plugin(npe2pm: Any) -> None:
    """The plugin as napari finds it."""
    npe2pm.register(PluginManifest.from_file(Path(napari_medvar.__file__).parent / "napari.yaml"))


@pytest.fixture
def from_menu(
    plugin: None, viewer: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], MedvarWidget]]:
    """Opens the widget as napari does, from the manifest."""
    opened: list[MedvarWidget] = []

    def open_it() -> MedvarWidget:
        _, widget = viewer.window.add_plugin_dock_widget("napari-medvar", "MedVAR Generate")
        opened.append(getattr(widget, "__wrapped__", widget))
        return opened[-1]

    yield open_it
    for widget in opened:
        widget.worker.close()
        qtbot.waitUntil(lambda widget=widget: not widget.worker.running, timeout=WAIT)


def test_napari_opens_the_widget_and_the_shipped_bundle(
    from_menu: Callable[[], MedvarWidget], settle: Settle, models: FakeModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could open the widget from the Plugins menu, or would have to look for a model first."""
    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    monkeypatch.setattr(settings, "open_bundle", lambda name, bundle_id, device: models(name))
    widget = from_menu()
    settle(widget)
    assert widget.bundle.combo.currentText() == "fake"
    combos = widget.condition.combos
    assert [combos["region"].itemText(i) for i in range(combos["region"].count())] == ["any", "abdomen"]
    assert combos["dataset"].isHidden()
    assert widget.condition.condition == Condition("CT", "abdomen", "axial")
    assert widget.scales.generate_button.isEnabled()


@pytest.mark.skipif(not shipped_bundles(), reason="no bundle ships with this installation")
def test_the_shipped_bundle_makes_an_image(
    from_menu: Callable[[], MedvarWidget], settle: Settle, viewer: Any, qtbot: QtBot
) -> None:
    """Everything would work in tests on fakes, and nothing for the user."""
    widget = from_menu()
    settle(widget)
    assert not widget.message.isVisible()
    qtbot.mouseClick(widget.scales.generate_button, Qt.MouseButton.LeftButton)
    settle(widget)
    assert widget.session.opened is not None
    schedule = widget.session.opened.bundle.schedule
    assert [layer.name for layer in viewer.layers] == [layer_name(schedule, k) for k in range(len(schedule))]
    assert [layer.visible for layer in viewer.layers] == [False] * (len(schedule) - 1) + [True]
    assert viewer.layers[-1].data.std() > 0
    assert "ONNX Runtime" in widget.status.device.text()


def test_without_a_bundle_the_widget_says_what_is_missing(
    from_menu: Callable[[], MedvarWidget], settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing that a user of a bare installation sees would be a traceback, or nothing."""
    monkeypatch.setattr(widget_module, "shipped_bundles", dict)

    def none(name: object, bundle_id: object, device: str) -> Any:
        raise MedvarError("This installation contains no bundle.")

    monkeypatch.setattr(settings, "open_bundle", none)
    widget = from_menu()
    settle(widget)
    assert "contains no bundle" in widget.message.text.text()
    assert widget.message.isVisible()
    assert not widget.scales.generate_button.isEnabled()
    assert widget.bundle.open_button.isEnabled()


def test_without_onnxruntime_the_widget_says_how_to_install_it(
    from_menu: Callable[[], MedvarWidget],
    settle: Settle,
    models: FakeModels,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> None:
    """A user would have to find out by himself what to install, and to restart napari afterwards."""
    from medvar_engine.backends.onnx import OnnxBackend

    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(settings, "open_bundle", lambda name, bundle_id, device: OnnxBackend(make_bundle()))
    widget = from_menu()
    settle(widget)
    assert "pip install 'napari-medvar[cpu]'" in widget.message.text.text()

    widget.session.open_bundle = models  # as if it had been installed meanwhile
    qtbot.mouseClick(widget.message.retry_button, Qt.MouseButton.LeftButton)
    settle(widget)
    assert not widget.message.isVisible()
    assert widget.scales.generate_button.isEnabled()


def test_a_folder_that_is_not_a_bundle_is_reported(
    widget: MedvarWidget, settle: Settle, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong folder would bring a traceback, or lose the model in use."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "/no/bundle/here")
    qtbot.mouseClick(widget.bundle.open_button, Qt.MouseButton.LeftButton)
    settle(widget)
    assert "is not a bundle" in widget.message.text.text()
    assert widget.message.isVisible()
    assert widget.session.opened is not None
    assert widget.scales.generate_button.isEnabled()
    qtbot.mouseClick(widget.scales.generate_button, Qt.MouseButton.LeftButton)
    settle(widget)
    assert not widget.message.isVisible()


def test_an_engine_error_does_not_offer_to_load_again(
    widget: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot
) -> None:
    """A user whose memory ran out would be sent to look for another model."""

    def fail(k: int) -> None:
        raise MedvarError("Not enough memory: generate fewer images at a time.")

    models.backend.before_step = fail
    qtbot.mouseClick(widget.scales.generate_button, Qt.MouseButton.LeftButton)
    settle(widget)
    assert "Not enough memory" in widget.message.text.text()
    assert widget.message.isVisible()
    assert not widget.message.buttons.isVisible()
    assert widget.scales.generate_button.isEnabled()


def test_text_that_names_no_entry_is_replaced(widget: MedvarWidget) -> None:
    """The list would show a word that the image is not made for."""
    combo = widget.condition.combos["region"]
    combo.setEditText("elbow")
    combo.lineEdit().editingFinished.emit()
    assert combo.currentText() == "abdomen"
    assert widget.condition.condition.region == "abdomen"


def test_a_condition_without_training_slices_gives_a_warning(widget: MedvarWidget) -> None:
    """A user would take nonsense for what the model can do."""
    widget.condition.show_condition(Condition("CT", "brain", "coronal"))
    assert "contain no" in widget.condition.note.text()
    widget.condition.show_condition(Condition("CT", "abdomen", "axial"))
    assert "900 training slices of 30 patients" in widget.condition.note.text()


def test_an_image_of_unknown_modality_has_no_hounsfield_units() -> None:
    """Values of what may be an MR image would be given in HU."""
    bundle = make_bundle()
    assert bundle.display(Condition(modality="CT")).unit == "HU"
    assert bundle.display(Condition()).unit == "arbitrary"
    assert bundle.display(Condition(modality="CT", region="brain")) == Display()


def test_every_control_explains_itself(widget: MedvarWidget) -> None:
    """Somebody without a manual would not know what a control does to the image."""
    sampling, scales = widget.sampling, widget.scales
    controls = [
        *widget.condition.combos.values(),
        *(sampling.seed_box.parentWidget(), sampling.roll_button, sampling.fresh_box),
        *(sampling.guidance, sampling.temperature, sampling.top_k, sampling.top_p),
        *(scales.generate_button, scales.step_button, scales.stop_button, scales.play_button),
        *(scales.slider, scales.undo_button, scales.redo_button),
        *(widget.bundle.combo.parentWidget(), widget.bundle.open_button),
    ]
    assert all(control.toolTip() for control in controls)


def test_only_what_the_model_knows_is_offered_and_lists_follow(widget: MedvarWidget) -> None:
    """One could ask for a CT of the brain that the model never saw, or be stuck in CT."""
    combos = widget.condition.combos
    combos["modality"].setCurrentIndex(combos["modality"].findText("MR"))
    assert widget.condition.condition == Condition("MR", "brain", "axial")
    assert [combos["region"].itemText(i) for i in range(combos["region"].count())] == ["any", "brain"]
    combos["modality"].setCurrentIndex(0)
    assert [combos["region"].itemText(i) for i in range(combos["region"].count())] == ["any", "abdomen", "brain"]
    assert "500 training slices" in widget.condition.note.text()


def test_the_position_is_offered_if_the_model_supports_it(widget: MedvarWidget) -> None:
    """A slice of the feet could not be asked for, or one be asked for that the model cannot make."""
    panel = widget.condition
    assert panel.position.isHidden()
    assert panel.condition.position is None
    bundle = widget.session.opened.bundle
    panel.offer(replace(bundle, labels=replace(bundle.labels, position=8)))
    assert not panel.position.isHidden()
    assert panel.condition.position is None
    panel.position.any_box.setChecked(False)
    panel.position.slider.setValue(0.25)
    assert panel.condition.position == 0.25
    panel.combos["plane"].setCurrentIndex(panel.combos["plane"].findData("axial"))
    assert panel.position.hint.text() == "0: feet · 1: head"  # nobody knows by heart where 0.25 is
    assert not panel.position.hint.isHidden()
    panel.combos["plane"].setCurrentIndex(panel.combos["plane"].findData(None))
    assert panel.position.hint.isHidden()
    panel.show_condition(Condition("MR", position=0.75))
    assert panel.condition == Condition("MR", position=0.75)
    panel.show_condition(Condition("MR"))
    assert panel.position.any_box.isChecked()
    assert not panel.position.slider.isEnabled()
    panel.offer(bundle)
    assert panel.position.isHidden()
    panel.show_condition(Condition("MR", position=0.75))
    assert panel.condition == Condition("MR")


def test_it_fits_into_a_narrow_dock(widget: MedvarWidget) -> None:
    """Buttons would be cut off on a small screen."""
    assert widget.area.minimumWidth() <= 300
    for fold in widget.folds.values():
        fold.expand()
    content = widget.area.widget()
    assert content is not None
    assert content.minimumSizeHint().width() <= 300


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


def test_many_errors_leave_space_for_the_panel(made: MedvarWidget) -> None:
    """A folder of damaged files would push the buttons out of the window."""
    for number in range(8):
        made.add_error(f"a{number}.nii is damaged.")
    made.add_error("a7.nii is damaged.")
    lines = made.message.text.text().split("\n\n")
    assert lines == ["3 earlier messages not shown.", *(f"a{number}.nii is damaged." for number in range(3, 8))]
    made.show_error("Paint first.")  # about what the user does now
    assert made.message.text.text() == "Paint first."


def test_what_waits_is_done_after_a_layer_was_restored(quick: MedvarWidget, settle: Settle) -> None:
    """A file dropped just then would be opened only after the next image."""
    done: list[int] = []
    quick.start("restore", lambda stop: [])
    quick.when_idle(lambda: done.append(1))
    quick.when_idle(lambda: done.append(2))
    settle(quick)
    assert done == [1, 2]


def test_a_closed_dock_gives_its_images_back_when_it_is_opened_again(
    from_menu: Callable[[], MedvarWidget],
    models: FakeModels,
    viewer: Any,
    settle: Settle,
    qtbot: QtBot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A click beside the title would lose an afternoon's images, and the closed widget would continue to work."""
    monkeypatch.setattr(widget_module, "read_settings", lambda: settings.Settings(autosave_folder=str(tmp_path)))
    monkeypatch.setattr(
        widget_module, "new_session", lambda settings: GenerationSession(models, autosave=Autosave(tmp_path))
    )
    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    widget = from_menu()
    settle(widget)
    widget.sampling.show_seed(21)
    widget.scales.generate_button.click()
    settle(widget)
    dock = next(dock for dock in widget.window().findChildren(QDockWidget) if dock.isAncestorOf(widget))
    with qtbot.waitSignal(widget.destroyed, timeout=WAIT):
        dock.title.close_button.click()
    viewer.layers.remove(viewer.layers[0])  # the closed widget takes no notice
    again = from_menu()
    settle(again)
    assert "without saving 1 image," in again.message.text.text()
    assert all((layer.data == layer.contrast_limits[0]).all() for layer in viewer.layers)  # black: no image yet
    assert not any(layer.thumbnail[..., :3].any() for layer in viewer.layers)
    again.message.accept_button.click()
    settle(again)
    assert _seeds(again) == [21]
    assert [layer.visible for layer in viewer.layers] == [False] * (len(SCHEDULE) - 1) + [True]


def test_a_session_without_a_window_becomes_layers(session_file: Path, models: FakeModels, monkeypatch: Any) -> None:
    """A script could not use what was made in the window."""
    monkeypatch.setattr(reader, "open_bundle_of", lambda *_: models(None))
    monkeypatch.setattr(reader, "_window", lambda: None)
    function = reader.get_reader(str(session_file))
    assert function is not None
    ((_, attributes, kind),) = function(str(session_file))
    assert kind == "image"
    assert attributes["name"] == "CT abdomen axial · seed 6"


def test_the_image_grows_with_the_window_until_it_is_zoomed(
    own_viewer: Any, open_widget: Callable[..., MedvarWidget], settle: Settle, qtbot: QtBot
) -> None:
    """The first image would stay small in a window made larger; or a view chosen by hand would be lost."""
    widget = open_widget(own_viewer)
    settle(widget)
    own_viewer.window.resize(900, 600)
    qtbot.wait(100)
    widget.scales.generate_button.click()
    settle(widget)
    before = own_viewer.scene.camera.zoom
    own_viewer.window.resize(1300, 850)
    qtbot.waitUntil(lambda: own_viewer.scene.camera.zoom > 1.2 * before, timeout=WAIT)
    own_viewer.scene.camera.zoom = 3.0
    own_viewer.window.resize(1000, 700)
    qtbot.wait(200)
    assert own_viewer.scene.camera.zoom == pytest.approx(3.0, rel=0.05)
