"""Our layers beside those of others: when they are made, where they lie in the list, their units and the selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fakes import SCHEDULE, FakeModels, Gate
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QSlider, QWidget

from napari_medvar.layers.image_layers import layer_name
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]
NAMES = [layer_name(SCHEDULE, k) for k in range(len(SCHEDULE))]


@pytest.fixture
def empty(viewer: Any, widget: MedvarWidget) -> Any:
    """The viewer with the widget open, and no layer of the test before."""
    viewer.layers.clear()
    return viewer


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What napari tells the user."""
    from napari.utils.notifications import notification_manager

    told: list[str] = []

    def note(notification: Any) -> None:
        told.append(notification.message)

    notification_manager.notification_ready.connect(note)
    yield told
    notification_manager.notification_ready.disconnect(note)


def brightness(viewer: Any) -> float:
    """Of the middle of the canvas."""
    pixels = viewer.screenshot(flash=False)[..., :3]
    height, width = pixels.shape[:2]
    return float(pixels[height // 2 - 20 : height // 2 + 20, width // 2 - 20 : width // 2 + 20].mean())


def test_no_layer_is_there_before_the_first_image(empty: Any, widget: MedvarWidget, settle: Settle) -> None:
    """Eight empty layers would stand in the list, and napari's welcome would be gone."""
    settle(widget)
    assert len(empty.layers) == 0
    widget.scales.step_button.click()
    settle(widget)
    assert [layer.name for layer in empty.layers] == NAMES[:1]


@pytest.mark.parametrize("before", ["nothing", "a synthetic image"])
def test_an_encoded_slice_of_a_volume_is_seen_at_once(
    empty: Any, widget: MedvarWidget, settle: Settle, qtbot: QtBot, before: str
) -> None:
    """The sharp original would be taken for the reconstruction, which napari does not draw."""
    if before != "nothing":
        widget.scales.generate_button.click()
        settle(widget)
    scan = empty.add_image(np.zeros((20, 64, 64), np.float32), name="scan", scale=(3, 1, 1), contrast_limits=(0, 1))
    scan.data = np.full((20, 64, 64), 0.6, np.float32)
    empty.dims.set_point(0, 30.0)
    empty.layers.selection.active = scan
    widget.real.panel.encode_button.click()
    settle(widget)
    scan.visible = False
    qtbot.wait(50)
    image = empty.layers[NAMES[-1]]
    assert image.ndim == 3
    assert image.visible
    assert brightness(empty) > 20
    widget.scales.slider.setValue(2)
    settle(widget)
    assert brightness(empty) > 20
    empty.layers.remove(scan)
    widget.sampling.roll()
    widget.scales.generate_button.click()  # and back to two axes
    settle(widget)
    assert [layer.ndim for layer in empty.layers] == [2] * len(SCHEDULE)
    assert brightness(empty) > 20


@pytest.mark.parametrize("shape", [(40, 40), (5, 40, 40)])
def test_an_ordinary_image_brings_no_warning(
    empty: Any, widget: MedvarWidget, settle: Settle, qtbot: QtBot, warnings: list[str], shape: tuple[int, ...]
) -> None:
    """napari would warn of inconsistent units at every image, and draw without them."""
    widget.scales.generate_button.click()
    settle(widget)
    shown = empty.layers.selection.active
    widget.views.show_view("entropy")
    settle(widget)
    assert empty.layers.selection.active == shown  # or the tools of the layer would be those of a map, also later
    widget.edit.panel.paint_button.click()
    settle(widget)
    assert [str(unit) for unit in empty.layers[NAMES[0]].units] == ["millimeter"] * 2
    empty.add_image(np.zeros(shape), name="camera")
    qtbot.wait(50)
    widget.views.show_view("likelihood")
    settle(widget)
    assert empty.layers.extent.units is not None
    empty.layers.remove("camera")
    qtbot.wait(50)
    assert all([str(unit) for unit in layer.units] == ["millimeter"] * 2 for layer in empty.layers)
    empty.add_image(np.zeros(shape), name="scan", units=("mm",) * len(shape))
    qtbot.wait(50)
    assert [str(unit) for unit in empty.layers[NAMES[0]].units] == ["millimeter"] * 2
    assert not [told for told in warnings if "units" in told]


def test_layers_deleted_meanwhile_come_back_below_the_mask(
    empty: Any, widget: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot
) -> None:
    """The mask would vanish under the image, or lose the brush."""
    widget.scales.generate_button.click()
    settle(widget)
    mask = empty.add_labels(np.zeros((64, 64), dtype=int), name="my mask")
    gate = models.backend.before_step = Gate(at=3)
    widget.scales.generate_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    for name in NAMES:
        empty.layers.remove(name)
    empty.layers.selection.active = mask
    gate.open()
    settle(widget)
    assert [layer.name for layer in empty.layers] == [*NAMES, "my mask"]
    widget.views.show_view("tokens")
    settle(widget)
    widget.views.show_view("entropy")
    settle(widget)
    assert empty.layers[-1] == mask
    assert len(empty.layers) == len(NAMES) + 2
    assert empty.layers.selection.active == mask


def test_what_was_selected_is_selected_again_after_comparing(empty: Any, widget: MedvarWidget, settle: Settle) -> None:
    """The layer controls would be empty, and keys do nothing."""
    for _ in range(2):
        widget.scales.generate_button.click()
        settle(widget)
    before = empty.layers.selection.active
    assert before is not None
    widget.history.compare(*(node.id for node in widget.session.tree.nodes))
    settle(widget)
    widget.history.end_compare()
    settle(widget)
    assert empty.layers.selection.active == before


def test_the_image_is_selected_where_nothing_is(made: MedvarWidget, settle: Settle) -> None:
    """napari would show no layer controls after the selected scan was removed by a script or a plugin."""
    layers = made.viewer.layers
    scan = layers.selection.active = made.viewer.add_image(np.zeros((64, 64)), name="scan")
    made.scales.slider.setValue(2)
    settle(made)
    assert layers.selection.active is scan
    layers.remove(scan)
    layers.selection.clear()
    made.scales.slider.setValue(3)
    settle(made)
    assert layers.selection.active is layers[NAMES[3]]


def test_picking_a_token_does_not_paint(empty: Any, widget: MedvarWidget, settle: Settle, qtbot: QtBot) -> None:
    """Every look at a token would leave a blot in the mask."""
    widget.scales.generate_button.click()
    settle(widget)
    widget.edit.panel.paint_button.click()
    settle(widget)
    mask = empty.layers["mask"]
    widget.edit.panel.pick_button.click()
    canvas = next(each for each in widget.window().findChildren(QWidget) if hasattr(each, "makeCurrent"))
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=middle)
    settle(widget)
    assert not np.asarray(mask.data).any()
    assert widget.edit.tokens.tokens
    assert str(mask.mode) == "paint"
    widget.edit.panel.pick_button.click()
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=middle)
    assert np.asarray(mask.data).any()  # a click does paint


def test_a_click_beside_the_slider_handle_moves_one_scale(
    empty: Any, widget: MedvarWidget, settle: Settle, qtbot: QtBot
) -> None:
    """A click beside the handle would jump to scale 0."""
    widget.scales.generate_button.click()
    settle(widget)
    groove = widget.scales.slider.findChild(QSlider)
    assert groove is not None
    qtbot.mouseClick(groove, Qt.MouseButton.LeftButton, pos=QPoint(groove.width() // 3, groove.height() // 2))
    assert widget.scales.scale == len(SCHEDULE) - 2


def test_a_new_image_is_visible_beside_an_opened_scan(empty: Any, widget: MedvarWidget, settle: Settle) -> None:
    """The image would grow unseen below the scan, or out of sight."""
    widget.scales.generate_button.click()
    settle(widget)
    scan = empty.add_image(np.zeros((64, 64), np.float32), name="scan", scale=(0.8, 0.8), contrast_limits=(0, 1))
    mask = empty.add_labels(np.zeros((64, 64), dtype=int), name="my mask")
    assert brightness(empty) < 5
    widget.scales.generate_button.click()
    settle(widget)
    assert [layer.name for layer in empty.layers] == ["scan", *NAMES, "my mask"]
    assert empty.layers.selection.active == mask
    assert brightness(empty) > 20
    scan.translate = (5000, 5000)
    empty.reset_view(layers=[scan])
    assert brightness(empty) < 5
    widget.scales.generate_button.click()
    settle(widget)
    assert brightness(empty) > 20


def test_a_detail_stays_in_sight_when_another_image_is_made(empty: Any, widget: MedvarWidget, settle: Settle) -> None:
    """Whoever looks at one place of many images would have to zoom in again and again."""
    widget.scales.generate_button.click()
    settle(widget)
    camera = empty.scene.camera
    camera.zoom *= 6
    camera.center = (0, 12, 15)
    widget.scales.generate_button.click()
    settle(widget)
    before = [*camera.center, camera.zoom]
    widget.history.compare(*(node.id for node in widget.session.tree.nodes))
    settle(widget)
    widget.history.end_compare()
    settle(widget)
    assert [*camera.center, camera.zoom] == pytest.approx(before)
    np.testing.assert_allclose(camera.center[-2:], (12, 15))
