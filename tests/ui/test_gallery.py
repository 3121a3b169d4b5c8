"""The gallery: many images as a sheet, of which some are starred, deleted, continued and saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeModels
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QToolTip

from medvar_engine.write.provenance import read_trace
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


@pytest.fixture
def many(quick: MedvarWidget, settle: Settle) -> MedvarWidget:
    """Five images of one condition."""
    quick.sampling.count_box.setValue(5)
    quick.scales.generate_button.click()
    settle(quick)
    return quick


def captions(widget: MedvarWidget) -> list[str]:
    sheet = widget.gallery.panel.sheet
    return [sheet.item(place).text() for place in range(sheet.count())]


def select(widget: MedvarWidget, *places: int) -> None:
    widget.gallery.panel.sheet.clearSelection()
    for place in places:
        widget.gallery.panel.sheet.item(place).setSelected(True)


def test_several_images_are_shown_as_a_sheet(many: MedvarWidget) -> None:
    """One would have to click through the history to see which of them are good."""
    panel = many.gallery.panel
    assert many.folds["gallery"].isExpanded()
    assert captions(many) == ["1", "2", "3", "4", "5"]
    assert not any(panel.sheet.item(place).icon().isNull() for place in range(5))
    shown = [panel.sheet.visualItemRect(panel.sheet.item(place)) for place in range(5)]
    assert all(min(rect.width(), rect.height()) >= panel.sheet.iconSize().width() for rect in shown)
    assert shown[3].left() == shown[0].left()  # one below the other, not askew
    assert "image 5 of 5" in many.status.progress.format()


def test_before_the_first_image_it_says_what_to_do(quick: MedvarWidget, settle: Settle) -> None:
    """An empty box would be taken for broken."""
    quick.folds["gallery"].expand()
    assert quick.gallery.panel.hint.isVisible()
    assert not quick.gallery.panel.sheet.isVisible()
    quick.scales.generate_button.click()
    settle(quick)
    assert not quick.gallery.panel.hint.isVisible()


def test_stars_are_stored_in_the_session_file(
    many: MedvarWidget, settle: Settle, qtbot: QtBot, models: FakeModels, tmp_path: Path
) -> None:
    """An hour of choosing would be lost with the window."""
    panel = many.gallery.panel
    select(many, 1, 3)
    panel.sheet.setFocus()
    qtbot.keyClick(panel.sheet, Qt.Key.Key_S)
    assert captions(many) == ["1", "★ 2", "3", "★ 4", "5"]
    assert many.history.panel.tree.topLevelItem(1).text(0).startswith("★ 2 · ")
    panel.filter_combo.setCurrentIndex(1)
    assert captions(many) == ["★ 2", "★ 4"]
    select(many, 0)
    panel.star_button.click()
    assert captions(many) == ["★ 4"]
    many.scales.undo_button.click()
    settle(many)
    assert captions(many) == ["★ 2", "★ 4"]
    path = many.session.save(tmp_path / "a.medvar")
    again = GenerationSession(models)
    again.load()
    list(again.open(path))
    assert [node.starred for node in again.tree.nodes] == [False, True, False, True, False]


def test_renaming_a_starred_image_keeps_the_star_out_of_its_name(many: MedvarWidget) -> None:
    """Names would collect stars."""
    select(many, 0)
    many.gallery.panel.star_button.click()
    item = many.history.panel.tree.topLevelItem(0)
    item.setText(0, "★ the good one")
    assert many.session.tree.nodes[0].name == "the good one"
    assert many.history.panel.tree.topLevelItem(0).text(0) == "★ the good one"


def test_images_are_deleted_and_one_is_continued(many: MedvarWidget, settle: Settle, qtbot: QtBot) -> None:
    """The sheet would only be there to look at."""
    panel = many.gallery.panel
    nodes = many.session.tree.nodes
    select(many, 0, 1)
    panel.sheet.setFocus()
    qtbot.keyClick(panel.sheet, Qt.Key.Key_Delete)
    settle(many)
    assert captions(many) == ["3", "4", "5"]
    select(many, 2)
    panel.continue_button.click()
    settle(many)
    assert many.session.tree.current == nodes[4].id
    assert many.sampling.seed == nodes[4].trace.request.seed
    many.scales.undo_button.click()
    settle(many)
    assert captions(many) == ["1", "2", "3", "4", "5"]  # several deleted together come back together


def test_the_starred_ones_are_saved(
    many: MedvarWidget, settle: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would have to be found again one by one."""
    panel = many.gallery.panel
    assert not panel.save_button.isEnabled()
    select(many, 2, 4)
    panel.star_button.click()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "good"))
    panel.save_button.click()
    settle(many)
    wanted = {many.session.tree.nodes[place].trace.to_json() for place in (2, 4)}
    assert {read_trace(path).to_json() for path in (tmp_path / "good").iterdir()} == wanted
    assert "2 of 2 written" in many.save.panel.report_label.text()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    panel.save_button.click()  # and changes their mind
    assert not many.worker.running


def test_the_gallery_moves_to_a_window_and_back(many: MedvarWidget, settle: Settle, qtbot: QtBot) -> None:
    """Small thumbnails would be all there is; or the sheet be gone with the window."""
    panel = many.gallery.panel
    small = panel.sheet.iconSize().width()
    panel.window_button.click()
    window = panel.separate_window
    assert window is not None
    qtbot.waitUntil(window.isVisible, timeout=WAIT)
    assert window.isAncestorOf(panel.sheet)
    assert panel.sheet.iconSize().width() > small
    select(many, 0)
    panel.star_button.click()
    assert captions(many)[0] == "★ 1"
    window.close()
    qtbot.waitUntil(lambda: panel.separate_window is None, timeout=WAIT)
    assert panel.isAncestorOf(panel.sheet)
    qtbot.waitUntil(lambda: panel.sheet.iconSize().width() == small, timeout=WAIT)
    panel.window_button.click()
    assert panel.separate_window is not None
    panel.separate_window.close()


@pytest.mark.parametrize("where", ["gallery", "history"])
def test_resting_on_an_image_shows_it_large(many: MedvarWidget, qtbot: QtBot, where: str) -> None:
    """Two images that differ in a detail look the same at 72 pixels."""
    many.folds[where].expand()
    view = many.gallery.panel.sheet if where == "gallery" else many.history.panel.tree
    item = view.item(1) if where == "gallery" else many.history.panel.tree.topLevelItem(1)
    place = view.visualItemRect(item).center()
    QApplication.sendEvent(view.viewport(), QHelpEvent(QEvent.Type.ToolTip, place, view.viewport().mapToGlobal(place)))
    assert 'img width="320"' in QToolTip.text()
    assert f"seed {many.session.tree.nodes[1].trace.request.seed}" in QToolTip.text()
    QToolTip.hideText()
    empty = QPoint(1, view.viewport().height() - 1)
    QApplication.sendEvent(view.viewport(), QHelpEvent(QEvent.Type.ToolTip, empty, empty))


def test_images_of_another_model_have_their_own_icons(many: MedvarWidget, settle: Settle) -> None:
    """An image would be shown that another model made."""
    many.load("fake")
    settle(many)
    assert captions(many) == []
    assert many.icons.missing([0]) == [0]
