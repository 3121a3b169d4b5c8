"""A radiologist opens the widget and presses its buttons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import SCHEDULE, FakeModels, Gate
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QPushButton

from medvar_engine.conditions import Condition
from napari_medvar.layers.image_layers import METADATA, layer_name, trace_of
from napari_medvar.widget import MedvarWidget

SCALES = len(SCHEDULE)
NAMES = ["scale 0 · 1×1", "scale 1 · 2×2", "scale 2 · 3×3", "scale 3 · 4×4", "scale 4 · 6×6", "scale 5 · 8×8"]
WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


def visible(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers if layer.visible]


def contents(viewer: Any) -> list[np.ndarray]:
    return [np.array(viewer.layers[name].data) for name in NAMES]


@pytest.fixture
def press(qtbot: QtBot, settle: Settle, widget: MedvarWidget) -> Callable[[QPushButton], None]:
    """Clicks a button and waits until everything is done."""

    def click(button: QPushButton) -> None:
        assert button.isEnabled()
        button.click()  # not the mouse: some lie in folds
        settle(widget)

    return click


Press = Callable[[QPushButton], None]


def generate_up_to(widget: MedvarWidget, models: FakeModels, qtbot: QtBot, scale: int) -> Gate:
    """Press Generate and wait until the engine stands before ``scale``; opening the gate lets it go on."""
    gate = models.backend.before_step = Gate(at=scale)
    qtbot.mouseClick(widget.scales.generate_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    return gate


def test_generate_shows_one_layer_a_scale(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """The image would not appear, or its scales under wrong names."""
    press(widget.scales.generate_button)
    assert [layer.name for layer in viewer.layers] == NAMES == [layer_name(SCHEDULE, k) for k in range(SCALES)]
    assert visible(viewer) == NAMES[-1:]
    assert widget.scales.scale == SCALES - 1
    assert "6 of 6 scales" in widget.status.progress.text()
    assert widget.status.device.text() == "Runs on Fake, CPU, float32"


def test_a_second_image_reuses_the_layers(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """Every Generate would take seconds longer and pile up ten more layers."""
    press(widget.scales.generate_button)
    layers, before = list(viewer.layers), contents(viewer)
    seed = widget.sampling.seed
    press(widget.scales.generate_button)
    assert [layer is old for layer, old in zip(viewer.layers, layers, strict=True)] == [True] * SCALES
    assert widget.sampling.seed != seed
    assert not np.array_equal(contents(viewer)[-1], before[-1])


def test_the_seed_is_kept_on_request(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """Somebody who types a seed from a paper would get another image."""
    widget.sampling.fresh_box.setChecked(False)
    widget.sampling.show_seed(2**63 + 1)
    press(widget.scales.generate_button)
    before = contents(viewer)
    press(widget.scales.generate_button)
    assert all(np.array_equal(a, b) for a, b in zip(before, contents(viewer), strict=True))
    trace = trace_of(viewer.layers[-1])
    assert trace is not None
    assert trace.request.seed == 2**63 + 1


def test_images_are_in_hounsfield_units_and_millimetres(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """Measured distances and values would be wrong."""
    press(widget.scales.generate_button)
    layer = viewer.layers[-1]
    np.testing.assert_allclose(layer.scale, [0.8, 0.8])
    assert [str(unit) for unit in layer.units] == ["millimeter", "millimeter"]
    assert list(layer.contrast_limits) == [-160, 240]
    preview = next(iter(widget.session.previews()))
    np.testing.assert_allclose(layer.data, -160 + (preview.pixels + 1) / 2 * 400, atol=1e-3)

    widget.condition.show_condition(Condition("MR", "brain", "axial"))
    press(widget.scales.generate_button)
    np.testing.assert_allclose(layer.scale, [1, 1])
    assert list(layer.contrast_limits) == [0, 1]


def test_a_window_set_by_hand_holds_for_every_scale_and_the_next_image(
    viewer: Any, widget: MedvarWidget, press: Press
) -> None:
    """A radiologist would have to set the window again for each scale and each image."""
    press(widget.scales.generate_button)
    viewer.layers[-1].contrast_limits = (0, 80)
    assert all(tuple(layer.contrast_limits) == (0, 80) for layer in viewer.layers)
    press(widget.scales.generate_button)
    assert all(tuple(layer.contrast_limits) == (0, 80) for layer in viewer.layers)


def test_layers_say_that_they_are_synthetic_and_how_they_were_made(
    viewer: Any, widget: MedvarWidget, press: Press
) -> None:
    """A synthetic image could be taken for a patient's, and never be made again."""
    press(widget.scales.generate_button)
    for k, layer in enumerate(viewer.layers):
        values = layer.metadata[METADATA]
        assert values["synthetic"] is True
        assert values["scale"] == k
        trace = trace_of(layer)
        assert trace is not None
        assert widget.session.trace is not None
        assert trace.to_json() == widget.session.trace.to_json()


def test_the_slider_shows_the_image_as_it_was(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """The slider would move and nothing happen."""
    press(widget.scales.generate_button)
    widget.scales.slider.setValue(2)
    assert visible(viewer) == [NAMES[2]]
    assert "Scale 2 of 5 · 3×3" in widget.scales.title.text()
    viewer.layers[NAMES[4]].visible = True
    widget.scales.slider.setValue(5)
    assert visible(viewer) == [NAMES[5]]


def test_the_grid_may_show_all_scales(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """Scales laid out side by side would vanish one by one with the next image."""
    press(widget.scales.generate_button)
    viewer.canvas.grid.enabled = True
    for layer in viewer.layers:
        layer.visible = True
    press(widget.scales.generate_button)
    widget.scales.slider.setValue(1)
    assert visible(viewer) == NAMES


def test_step_makes_exactly_one_scale(viewer: Any, widget: MedvarWidget, press: Press, models: FakeModels) -> None:
    """Somebody who wants to stop and think would be carried on."""
    press(widget.scales.step_button)
    assert models.backend.steps == [0]
    assert visible(viewer) == NAMES[:1]
    press(widget.scales.step_button)
    assert models.backend.steps == [0, 1]
    assert visible(viewer) == NAMES[1:2]
    assert widget.scales.generate_button.text() == "Finish (&G)"
    press(widget.scales.generate_button)
    assert models.backend.steps == list(range(SCALES))
    assert widget.scales.generate_button.text() == "&Generate"


def test_scales_not_made_yet_do_not_show_the_image_before(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """The fine scales of the last image would be taken for those of this one."""
    press(widget.scales.generate_button)
    press(widget.scales.step_button)
    assert all(np.ptp(viewer.layers[name].data) == 0 for name in NAMES[1:])
    assert all(trace_of(viewer.layers[name]) is None for name in NAMES[1:])
    widget.scales.slider.setValue(4)
    assert widget.scales.scale == 0
    assert visible(viewer) == NAMES[:1]


def test_thumbnails_of_hidden_layers_follow(widget: MedvarWidget, viewer: Any, press: Press) -> None:
    """The layer list would show the image before, or one that was undone."""
    press(widget.scales.generate_button)
    before = np.array(viewer.layers[NAMES[2]].thumbnail)
    press(widget.scales.generate_button)
    press(widget.scales.undo_button)
    assert abs(np.array(viewer.layers[NAMES[2]].thumbnail).astype(int) - before).mean() < 8
    press(widget.scales.undo_button)
    assert np.ptp(viewer.layers[NAMES[2]].thumbnail[..., 0]) == 0


def test_stop_stops_within_one_scale(
    viewer: Any, widget: MedvarWidget, models: FakeModels, qtbot: QtBot, settle: Settle
) -> None:
    """With a large model on a slow machine, Stop would take as long as going on."""
    gate = generate_up_to(widget, models, qtbot, scale=2)
    qtbot.waitUntil(lambda: visible(viewer) == [NAMES[1]], timeout=WAIT)
    assert not widget.scales.generate_button.isEnabled()
    assert not widget.edit.panel.resample_button.isEnabled()
    qtbot.mouseClick(widget.scales.stop_button, Qt.MouseButton.LeftButton)
    gate.open()
    settle(widget)
    assert models.backend.steps == [0, 1, 2]
    assert visible(viewer) == [NAMES[2]]
    assert all(trace_of(viewer.layers[name]) is None for name in NAMES[3:])


def test_resample_keeps_the_coarse_scales(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """The layout that was to be kept would change, or the detail that was to change would stay."""
    press(widget.scales.generate_button)
    before, seed = contents(viewer), widget.sampling.seed
    widget.scales.slider.setValue(3)
    assert widget.edit.panel.resample_button.text() == "&Resample from scale 3"
    press(widget.edit.panel.resample_button)
    assert [np.array_equal(a, b) for a, b in zip(before, contents(viewer), strict=True)] == [True] * 3 + [False] * 3
    assert widget.sampling.seed != seed
    assert visible(viewer) == NAMES[-1:]
    trace = trace_of(viewer.layers[0])
    assert trace is not None
    assert trace.parent is not None
    assert trace.parent.request.seed == seed


def test_undo_brings_the_image_and_its_settings_back(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """A good image would be lost with one click."""
    press(widget.scales.generate_button)
    before, seed = contents(viewer), widget.sampling.seed
    widget.scales.slider.setValue(1)
    press(widget.edit.panel.resample_button)
    press(widget.scales.undo_button)
    assert all(np.array_equal(a, b) for a, b in zip(before, contents(viewer), strict=True))
    assert widget.sampling.seed == seed
    assert visible(viewer) == NAMES[-1:]
    press(widget.scales.undo_button)
    assert widget.session.node is None
    assert all(np.ptp(data) == 0 for data in contents(viewer))
    press(widget.scales.redo_button)
    assert all(np.array_equal(a, b) for a, b in zip(before, contents(viewer), strict=True))


def test_a_deleted_layer_comes_back_in_its_place(
    viewer: Any, widget: MedvarWidget, press: Press, settle: Settle
) -> None:
    """The slider would point at nothing, or napari crash."""
    press(widget.scales.generate_button)
    viewer.layers.remove(NAMES[2])
    widget.scales.slider.setValue(2)
    settle(widget)
    assert [layer.name for layer in viewer.layers] == NAMES
    assert visible(viewer) == [NAMES[2]]
    viewer.layers.remove(NAMES[-1])  # the finest comes back, but is not what is looked at
    widget.scales.slider.setValue(1)
    settle(widget)
    assert [layer.name for layer in viewer.layers] == NAMES
    assert visible(viewer) == [NAMES[1]]
    viewer.layers.clear()
    press(widget.scales.generate_button)
    assert [layer.name for layer in viewer.layers] == NAMES
    assert visible(viewer) == NAMES[-1:]


def test_a_widget_opened_again_continues_with_the_layers(
    viewer: Any, widget: MedvarWidget, press: Press, open_widget: Callable[[], MedvarWidget], settle: Settle
) -> None:
    """Closing the panel to have more room would double every layer afterwards."""
    press(widget.scales.generate_button)
    viewer.window.remove_dock_widget(widget)
    again = open_widget()
    settle(again)
    again.scales.generate_button.click()
    settle(again)
    assert [layer.name for layer in viewer.layers] == NAMES
    assert visible(viewer) == NAMES[-1:]


def test_a_bug_in_the_engine_leaves_the_widget_usable(
    widget: MedvarWidget, press: Press, models: FakeModels, qtbot: QtBot
) -> None:
    """After any mistake of ours napari would have to be started again, and nobody would know of the mistake."""
    models.backend.before_step = lambda k: [][k]
    with qtbot.capture_exceptions() as told:
        press(widget.scales.generate_button)
        qtbot.waitUntil(lambda: bool(told), timeout=WAIT)  # napari tells of it after the work has ended
    assert [kind for kind, *_ in told] == [IndexError]
    models.backend.before_step = lambda k: None
    press(widget.scales.generate_button)
    assert widget.session.node is not None
    assert widget.session.node.complete


def test_other_layers_are_left_alone(viewer: Any, widget: MedvarWidget, press: Press) -> None:
    """A mask being painted would lose its selection, or be hidden."""
    press(widget.scales.generate_button)
    mask = viewer.add_labels(np.zeros((64, 64), dtype=int), name="mask")
    press(widget.scales.generate_button)
    widget.scales.slider.setValue(2)
    assert mask.visible
    assert viewer.layers.selection.active == mask


def test_the_window_stays_alive_while_the_engine_works(
    widget: MedvarWidget, press: Press, models: FakeModels, qtbot: QtBot, settle: Settle
) -> None:
    """napari would freeze for as long as an image takes, and be taken for crashed."""
    press(widget.scales.generate_button)  # makes the layers, which takes napari its time
    gate = generate_up_to(widget, models, qtbot, scale=3)
    ticks: list[bool] = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(widget.worker.running))
    timer.start(10)
    qtbot.waitUntil(lambda: len(ticks) > 50, timeout=WAIT)
    timer.stop()
    assert all(ticks)  # all the while the engine was at work on one scale
    gate.open()
    settle(widget)


def test_closing_the_viewer_meanwhile_is_clean(
    own_viewer: Any,
    open_widget: Callable[..., MedvarWidget],
    models: FakeModels,
    qtbot: QtBot,
    settle: Settle,
) -> None:
    """Closing napari would crash it, or leave a thread at work for ever."""
    widget = open_widget(own_viewer)
    settle(widget)
    gate = generate_up_to(widget, models, qtbot, scale=1)
    worker = widget.worker
    own_viewer.close()
    gate.open()
    qtbot.waitUntil(lambda: not worker.running, timeout=WAIT)
    assert models.backend.steps in ([0, 1], [0, 1, 2])


def test_closing_the_widget_meanwhile_is_clean(
    viewer: Any, widget: MedvarWidget, models: FakeModels, qtbot: QtBot
) -> None:
    """A closed widget would go on making layers."""
    gate = generate_up_to(widget, models, qtbot, scale=1)
    worker = widget.worker
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.wait(50)
    gate.open()
    qtbot.waitUntil(lambda: not worker.running, timeout=WAIT)
    assert models.backend.steps in ([0, 1], [0, 1, 2])


def test_finish_finishes_all_that_were_begun_together(
    widget: MedvarWidget, models: FakeModels, qtbot: QtBot, settle: Settle, press: Press
) -> None:
    """The halves would stay, and the same seeds be made a second time."""
    widget.sampling.count_box.setValue(3)
    gate = generate_up_to(widget, models, qtbot, scale=2)
    qtbot.mouseClick(widget.scales.stop_button, Qt.MouseButton.LeftButton)
    gate.open()
    settle(widget)
    assert [node.depth for node in widget.session.tree.nodes] == [3, 3, 3]
    press(widget.scales.step_button)  # the others may lag behind, or not
    assert widget.scales.generate_button.text() == "Finish 3 (&G)"
    press(widget.scales.generate_button)
    nodes = widget.session.tree.nodes
    assert len(nodes) == 3
    assert all(node.complete for node in nodes)
    alone = widget.session.opened.generator.finish(widget.session.opened.generator.start([nodes[2].trace.request]))
    assert alone.trace(0).pyramid == nodes[2].trace.pyramid
    press(widget.scales.undo_button)
    assert [node.depth for node in widget.session.tree.nodes] == [4, 4, 4]


def test_an_image_given_up_earlier_is_left_alone(widget: MedvarWidget, press: Press) -> None:
    """Finishing one image would take the time of all that were stopped that day."""
    widget.sampling.fresh_box.setChecked(False)
    widget.sampling.show_seed(5)
    press(widget.scales.step_button)
    widget.sampling.show_seed(90)
    press(widget.scales.step_button)
    press(widget.scales.generate_button)
    assert [node.complete for node in widget.session.tree.nodes] == [False, True]
