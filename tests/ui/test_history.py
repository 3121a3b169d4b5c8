"""The history: going back, names, comparing, and what a crash has left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import SCHEDULE, FakeModels
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt

from medvar_engine.conditions import Condition
from medvar_engine.generate.trace import Request
from napari_medvar import widget as widget_module
from napari_medvar.layers.image_layers import layer_name
from napari_medvar.panels.height_handle import HeightHandle
from napari_medvar.session.autosave import Autosave
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.settings import Settings
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]
FINEST = layer_name(SCHEDULE, len(SCHEDULE) - 1)


@pytest.fixture
def three(quick: MedvarWidget, settle: Settle) -> MedvarWidget:
    """An image, one resampled from it, and another."""
    quick.scales.generate_button.click()
    settle(quick)
    quick.scales.slider.setValue(3)
    quick.edit.panel.resample_button.click()
    settle(quick)
    quick.condition.show_condition(quick.condition.condition)
    quick.sampling.roll()
    quick.scales.generate_button.click()
    settle(quick)
    return quick


def test_a_chain_is_flat_and_a_branch_indented(three: MedvarWidget, settle: Settle) -> None:
    """Nobody could tell what was done to make an image, and twenty tries would run out of the panel's side."""
    tree = three.history.panel.tree
    first = three.session.tree.nodes[0].id
    three.history.select(first)
    settle(three)
    three.edit.panel.from_box.setValue(1)
    three.edit.panel.resample_button.click()  # a second one from the first
    settle(three)
    assert [tree.topLevelItem(i).text(0).split(" · ", 1)[1] for i in range(2)] == [
        f"CT abdomen axial · seed {three.session.tree.nodes[0].trace.request.seed}",
        "resampled from scale 3",
    ]
    assert tree.topLevelItemCount() == 3
    assert tree.topLevelItem(0).childCount() == 1
    assert tree.topLevelItem(0).child(0).text(0) == "4 · resampled from scale 1"
    assert not tree.topLevelItem(0).icon(0).isNull()
    assert "resampled from scale 3" in tree.topLevelItem(1).toolTip(0)


def test_the_history_can_be_made_higher(made: MedvarWidget, qtbot: QtBot) -> None:
    """Twenty images would be looked at through a slit."""
    tree, handle = made.history.panel.tree, made.history.panel.findChild(HeightHandle)
    assert handle is not None
    made.folds["history"].expand()
    before = tree.minimumHeight()
    qtbot.mousePress(handle, Qt.MouseButton.LeftButton, pos=QPoint(9, 4))
    qtbot.mouseMove(handle, QPoint(9, 94))
    qtbot.mouseRelease(handle, Qt.MouseButton.LeftButton, pos=QPoint(9, 94))
    assert tree.minimumHeight() > before + 50


def test_an_image_of_the_history_is_shown_again_with_its_settings(three: MedvarWidget, settle: Settle) -> None:
    """An earlier image could be seen listed, and not be gone on with."""
    first = three.session.tree.nodes[0]
    three.history.panel.tree.setCurrentItem(three.history.panel.tree.topLevelItem(0))
    three.history.panel.show_button.click()
    settle(three)
    assert three.session.tree.current == first.id
    assert three.sampling.seed == first.trace.request.seed
    preview = next(iter(three.session.previews()))
    np.testing.assert_allclose(three.viewer.layers[FINEST].data, -160 + (preview.pixels + 1) / 2 * 400, atol=1e-3)


def test_renaming_and_deleting_can_be_undone(three: MedvarWidget, settle: Settle) -> None:
    """A slip of the mouse would lose an image for good."""
    panel = three.history.panel
    item = panel.tree.topLevelItem(0)
    item.setText(0, "the good one")
    assert three.session.tree.nodes[0].name == "the good one"
    panel.tree.setCurrentItem(panel.tree.topLevelItem(0))
    panel.delete_button.click()
    settle(three)
    assert len(three.session.tree.nodes) == 2
    three.scales.undo_button.click()
    settle(three)
    assert len(three.session.tree.nodes) == 3
    assert panel.tree.topLevelItem(0).text(0) == "the good one"


def test_buttons_act_on_the_image_that_is_shown(three: MedvarWidget, settle: Settle) -> None:
    """Delete or Rename after an edit would take an image that was selected long before."""
    panel, nodes = three.history.panel, three.session.tree.nodes
    panel.tree.setCurrentItem(panel.tree.topLevelItem(0))
    panel.show_button.click()
    settle(three)
    assert panel.selected == [nodes[0].id]
    three.edit.panel.resample_button.click()
    settle(three)
    assert panel.selected == [three.session.tree.nodes[-1].id]
    panel.tree.selectAll()
    three.refresh()
    assert len(panel.selected) == 4  # a selection of the user's stays while the image does
    panel.delete_button.click()
    settle(three)
    assert not three.session.tree.nodes
    three.scales.undo_button.click()  # one step
    settle(three)
    assert len(three.session.tree.nodes) == 4


def test_deleting_the_current_image_shows_another_or_none(three: MedvarWidget, settle: Settle) -> None:
    """An image that is gone would stay on the screen."""
    three.history.delete([node.id for node in three.session.tree.nodes])
    settle(three)
    assert three.session.tree.nodes == ()
    assert np.ptp(three.viewer.layers[FINEST].data) == 0
    assert three.scales.title.text() == "No image yet: press Generate."


def test_two_images_side_by_side_and_back(three: MedvarWidget, settle: Settle) -> None:
    """One would compare from memory; or the viewer would not be as before afterwards."""
    mask = three.viewer.add_labels(np.ones((4, 4), dtype=int), name="somebody's")
    before = [(layer.name, layer.visible) for layer in three.viewer.layers]
    panel = three.history.panel
    panel.tree.topLevelItem(0).setSelected(True)
    panel.tree.topLevelItem(1).setSelected(True)
    panel.compare_button.click()
    settle(three)
    seen = [layer for layer in three.viewer.layers if layer.visible]
    assert [layer.name[:3] for layer in seen] == ["A ·", "B ·"]
    assert all(layer.name_overlay.visible for layer in seen)
    assert three.viewer.canvas.grid.enabled
    ids = panel.selected
    for layer, id_ in zip(seen, ids, strict=True):
        preview = next(iter(three.session.previews([len(SCHEDULE) - 1], node=id_)))
        np.testing.assert_allclose(layer.data, -160 + (preview.pixels + 1) / 2 * 400, atol=1e-3)
    panel.compare_button.click()
    settle(three)
    assert [(layer.name, layer.visible) for layer in three.viewer.layers] == before
    assert not three.viewer.canvas.grid.enabled
    assert mask in three.viewer.layers


def test_generating_ends_a_comparison(three: MedvarWidget, settle: Settle) -> None:
    """The new image would grow unseen."""
    ids = [node.id for node in three.session.tree.nodes]
    three.history.compare(ids[0], ids[1])
    settle(three)
    three.scales.generate_button.click()
    settle(three)
    assert [layer.name for layer in three.viewer.layers if layer.visible] == [FINEST]
    assert not three.history.panel.compare_button.isChecked()


def test_a_crashed_session_is_offered_and_restored(
    models: FakeModels, qtbot: QtBot, settle: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An afternoon's images would be lost with a crash."""
    from napari.components import ViewerModel

    folder = tmp_path / "sessions"
    autosave = Autosave(folder)
    crashed = GenerationSession(models, autosave=autosave)
    crashed.load("fake")
    list(crashed.generate(Request(Condition("CT", "abdomen", "axial"), seed=11)))
    autosave.leave()
    monkeypatch.setattr(widget_module, "read_settings", lambda: Settings(autosave_folder=str(folder)))
    monkeypatch.setattr(widget_module, "new_session", lambda settings: GenerationSession(models))
    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    widget = MedvarWidget(ViewerModel())
    qtbot.addWidget(widget)
    widget.show()
    settle(widget)
    assert "without saving 1 image," in widget.message.text.text()
    widget.scales.generate_button.click()  # the question waits for its answer
    settle(widget)
    widget.show_error("Something else is wrong.")
    widget.scales.step_button.click()
    settle(widget)
    assert "without saving 1 image," in widget.message.text.text()
    widget.message.accept_button.click()
    settle(widget)
    assert [node.trace.request.seed for node in widget.session.tree.nodes] == [11]
    assert widget.scales.made == len(SCHEDULE)
    widget.worker.close()


def test_the_history_works_by_keyboard(three: MedvarWidget, settle: Settle, qtbot: QtBot) -> None:
    """Somebody who cannot use a mouse could not use the widget."""
    three.activateWindow()
    qtbot.waitUntil(three.isActiveWindow, timeout=WAIT)
    three.scales.slider.setFocus()
    before = three.session.tree.current
    qtbot.keyClick(three.scales.slider, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    settle(three)
    assert three.session.tree.current != before
    focused = three.focusWidget()
    assert focused is not None
    assert focused in three.scales.slider.children(), focused
    qtbot.keyClick(focused, Qt.Key.Key_Left)
    assert three.scales.scale == len(SCHEDULE) - 2


def test_the_tab_key_reaches_everything_from_top_to_bottom(made: MedvarWidget, settle: Settle) -> None:
    """Lists could not be reached without a mouse, and the focus would jump up and down."""
    from qtpy.QtWidgets import QComboBox, QWidget

    for fold in made.folds.values():
        fold.expand()
    settle(made)
    order: list[QWidget] = []
    widget = made.nextInFocusChain()
    while widget is not None and widget is not made:
        order.append(widget)
        widget = widget.nextInFocusChain()
    stops = [
        each
        for each in order
        if made.isAncestorOf(each) and each.focusPolicy() & Qt.FocusPolicy.TabFocus and each.focusProxy() is None
    ]
    assert set(made.findChildren(QComboBox)) <= set(stops)
    for before, after in [
        (made.condition.combos["modality"], made.condition.combos["region"]),
        (made.condition.combos["region"], made.scales.generate_button),
        (made.views.combo, made.edit.panel.edge_box),
        (made.edit.panel.edge_box, made.edit.panel.lock_buttons[0]),
        (made.edit.panel.lock_buttons[-1], made.edit.panel.pick_button),
        (made.save.panel.open_session_button, next(iter(made.save.panel.counts.values()))),
        (next(reversed(made.save.panel.counts.values())), made.save.panel.set_button),
    ]:
        assert stops.index(before) < stops.index(after)


def test_no_two_controls_share_a_mnemonic(quick: MedvarWidget) -> None:
    """Alt and a letter would only move the focus to and fro."""
    from qtpy.QtWidgets import QAbstractButton, QLabel

    texts = [
        widget.text()
        for kind in (QAbstractButton, QLabel)
        for widget in quick.findChildren(kind)
        if "&" in widget.text().replace("&&", "")
    ]
    letters = [text[text.index("&") + 1].lower() for text in texts]
    assert len(letters) > 8
    assert sorted(letters) == sorted(set(letters)), texts
    assert not set(letters) & set("flpvwh"), "these open napari's menus"


def test_every_button_has_a_tooltip(quick: MedvarWidget) -> None:
    """Somebody without a manual would not know what a control does to the image."""
    from qtpy.QtWidgets import QPushButton, QToolButton

    for kind in (QPushButton, QToolButton):
        for widget in quick.findChildren(kind):
            ours = widget.parentWidget() is not None and "QSpinBox" not in type(widget.parentWidget()).__name__
            if ours and widget.text():
                assert widget.toolTip(), widget.text()


def test_ten_images_leave_no_widgets_behind(quick: MedvarWidget, settle: Settle) -> None:
    """An afternoon's work would make napari slower and slower."""
    from qtpy.QtWidgets import QApplication, QWidget

    def count() -> int:
        return len(QApplication.topLevelWidgets()) + len(quick.findChildren(QWidget))

    quick.scales.generate_button.click()
    settle(quick)
    before, layers = count(), len(quick.viewer.layers)
    for _ in range(10):
        quick.scales.generate_button.click()
        settle(quick)
    assert len(quick.viewer.layers) == layers
    assert count() <= before + 2
