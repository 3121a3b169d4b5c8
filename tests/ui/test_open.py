"""Opening the widget, with and without a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import SCHEDULE, FakeModels, make_bundle
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QFileDialog

from medvar_engine.bundle.read import shipped_bundles
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import Display
from napari_medvar import settings
from napari_medvar import widget as widget_module
from napari_medvar.layers.image_layers import layer_name
from napari_medvar.session.autosave import Autosave
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


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
    assert [node.trace.request.seed for node in again.session.tree.nodes] == [21]
    assert [layer.visible for layer in viewer.layers] == [False] * (len(SCHEDULE) - 1) + [True]


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
