"""Keys: in the panel, in the whole window, and where they are listed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import SCHEDULE
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QTextBrowser, QToolButton, QWidget

from napari_medvar import guide, keys
from napari_medvar.panels.help_dialog import HelpDialog
from napari_medvar.panels.key_label import KeyLabel
from napari_medvar.widget import MedvarWidget

Settle = Callable[[MedvarWidget], None]
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def canvas(widget: MedvarWidget) -> QWidget:
    """What has the focus when one looks at an image."""
    found = next(each for each in widget.window().findChildren(QWidget) if hasattr(each, "makeCurrent"))
    found.setFocus()
    return found


def test_keys_work_while_the_canvas_has_the_focus(
    viewer: Any, widget: MedvarWidget, settle: Settle, qtbot: QtBot, canvas: QWidget
) -> None:
    """For every image one would go to the panel and back with the mouse."""
    qtbot.keyClick(canvas, Qt.Key.Key_Return, CTRL)
    settle(widget)
    assert [node.complete for node in widget.session.tree.nodes] == [True]
    qtbot.keyClick(canvas, Qt.Key.Key_Left, SHIFT)
    assert widget.scales.scale == len(SCHEDULE) - 2
    qtbot.keyClick(canvas, Qt.Key.Key_Right, SHIFT)
    assert widget.scales.scale == len(SCHEDULE) - 1
    widget.edit.panel.from_box.setValue(2)
    qtbot.keyClick(canvas, Qt.Key.Key_R, CTRL | SHIFT)
    settle(widget)
    assert len(widget.session.tree.nodes) == 2
    qtbot.keyClick(canvas, Qt.Key.Key_B, CTRL)
    settle(widget)
    assert widget.session.tree.current == widget.session.tree.nodes[0].id


def test_keys_of_napari_are_not_taken(widget: MedvarWidget) -> None:
    """Somebody's reset of the view would draw another image."""
    from app_model.types import KeyBinding
    from napari.utils.shortcuts import default_shortcuts

    taken = {str(binding) for bindings in default_shortcuts.values() for binding in bindings}
    assert not taken & {str(KeyBinding.from_str(key.default)) for key in keys.KEYS}


@pytest.fixture
def changed() -> Iterator[None]:
    """The user has chosen another key for Step."""
    from app_model.types import KeyBinding
    from napari.settings import get_settings

    shortcuts = get_settings().shortcuts
    before = dict(shortcuts.shortcuts)
    shortcuts.shortcuts = {**before, "napari-medvar:step": [KeyBinding.from_str("Ctrl+Alt+S")]}
    yield
    shortcuts.shortcuts = before


def test_the_help_lists_keys_as_the_user_has_set_them(changed: None, widget: MedvarWidget, qtbot: QtBot) -> None:
    """The list would tell of keys that do nothing."""
    dialog = HelpDialog(widget.session.opened)
    qtbot.addWidget(dialog)
    text = "\n".join(page.toPlainText() for page in dialog.findChildren(QTextBrowser))
    assert "Ctrl+Alt+S" in text
    assert "Ctrl+Enter" in text
    assert "Nothing: a fake for tests." in text  # what the model was trained on


def test_every_section_has_a_question_mark_that_opens_its_page(
    quick: MedvarWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wonders what “Locked” does would have to find the documentation first."""
    opened: list[HelpDialog] = []
    monkeypatch.setattr(HelpDialog, "open", lambda dialog: opened.append(dialog))
    sections = {"sampling": quick.sampling.fold, **quick.folds}
    for name, section in sections.items():
        before = section.isExpanded()
        (mark,) = section.toggleButton().findChildren(QToolButton)
        mark.click()
        assert section.isExpanded() == before  # the click was for the mark alone
        dialog = opened[-1]
        assert dialog.tabs.currentWidget() is dialog.guide
        assert dialog.guide.text.toPlainText().startswith(guide.PAGES[name])
    assert sections.keys() <= guide.PAGES.keys()
    quick.buttons["help"].click()
    assert opened[-1].tabs.tabText(opened[-1].tabs.currentIndex()) == "Keys"


def test_images_of_the_guide_are_there(qtbot: QtBot) -> None:
    """A page would show a broken file."""
    for name in guide.PAGES:
        for image in re.findall(r"\]\(([^)]+)\)", guide.page(name)):
            assert not QPixmap(str(guide.FOLDER / image)).isNull(), image


def test_before_the_first_image_the_panel_says_what_to_do(quick: MedvarWidget) -> None:
    """A newcomer would look at a dozen controls, and not know which one to press."""
    assert "press Generate" in quick.scales.title.text()
    assert not quick.status.progress.isVisible()  # an empty frame says nothing


def key_on(button: QWidget) -> str:
    """The key that a button shows."""
    (label,) = button.findChildren(KeyLabel)
    assert label.isVisible()
    return label.text()


def test_buttons_show_their_keys_also_when_they_change(changed: None, quick: MedvarWidget) -> None:
    """Keys would be found by chance only, or a button would tell of a key that does nothing any more."""
    from app_model.types import KeyBinding
    from napari.settings import get_settings

    quick.folds["edit"].expand()
    shown = {name: key_on(button) for name, button in quick.buttons.items() if name != "help"}
    assert shown == {
        "generate": "Ctrl+Enter",
        "step": "Ctrl+Alt+S",
        "stop": "Esc",
        "undo": "Ctrl+Z",
        "redo": "Ctrl+⇧+Z",
        "resample": "Ctrl+⇧+R",
        "flip": "Ctrl+B",
    }
    shortcuts = get_settings().shortcuts
    shortcuts.shortcuts = {**shortcuts.shortcuts, "napari-medvar:step": [KeyBinding.from_str("F7")]}
    assert key_on(quick.scales.step_button) == "F7"
    shortcuts.shortcuts = {**shortcuts.shortcuts, "napari-medvar:step": []}
    assert key_on(quick.scales.step_button) == ""


def test_a_closed_widget_does_not_react_to_changed_keys(
    open_widget: Callable[[], MedvarWidget], viewer: Any, settle: Settle, qtbot: QtBot, changed: None
) -> None:
    """Preferences would fail with an error about a deleted button."""
    from napari.settings import get_settings

    shortcuts, widget = get_settings().shortcuts, open_widget()
    settle(widget)
    listeners = len(shortcuts.events.shortcuts.callbacks)
    with qtbot.waitSignal(widget.destroyed):
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
    assert len(shortcuts.events.shortcuts.callbacks) == listeners - 1
    shortcuts.shortcuts = {**shortcuts.shortcuts, "napari-medvar:step": []}
