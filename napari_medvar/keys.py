"""Keyboard shortcuts that work in the whole napari window.

They are registered with napari: the user sees and changes them under Preferences › Shortcuts. Keys that napari uses
itself are not taken, so the keys of Undo and Stop work in the panel only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

OR = " or "  # between several keys of one action
_PREFIX = "napari-medvar:"


@dataclass(frozen=True, slots=True)
class Key:
    """An action of the widget and its default key."""

    action: str  # the name of a button, see `MedvarWidget.press`
    text: str
    default: str


KEYS = (
    Key("generate", "Generate, or finish unfinished images", "Ctrl+Enter"),
    Key("step", "Make one scale more", "Ctrl+."),
    Key("resample", "Resample from the chosen scale", "Ctrl+Shift+R"),
    Key("flip", "Show the image before or after the last edit", "Ctrl+B"),
    Key("coarser", "Show the previous scale", "Shift+Left"),
    Key("finer", "Show the next scale", "Shift+Right"),
)


def register(opened_in: Callable[[Any], Any]) -> None:
    """Register the actions with napari, and bind the keys that the user has chosen or else the default keys.

    ``opened_in`` returns the widget in a viewer's window, or None.
    """
    from napari.components import ViewerModel
    from napari.utils.action_manager import action_manager

    for key in KEYS:
        name = _PREFIX + key.action
        action_manager.register_action(name, _pressed(key.action, opened_in), f"MedVAR: {key.text}", ViewerModel)
        for binding in _chosen(key):
            action_manager.bind_shortcut(name, binding)


def texts() -> dict[str, str]:
    """The current keys of all actions, as text to show to users; an empty text for an action without a key."""
    return {key.action: OR.join(map(str, _chosen(key))) for key in KEYS}


class Label(Protocol):
    """What shows a key, such as a label on a button."""

    def show_key(self, text: str) -> None:
        """Show a key; an empty text hides the label."""


class ShownKeys:
    """Shows the current keys on labels, also when the user changes them, until `close`.

    ``labels`` are those of actions, and ``panel_keys`` the keys of actions that have none in the window.
    """

    def __init__(self, labels: Mapping[str, Label], panel_keys: Mapping[str, str]) -> None:
        from napari.settings import get_settings

        self._labels, self._panel_keys = labels, panel_keys
        self._changed = get_settings().shortcuts.events.shortcuts
        self._changed.connect(self._show)  # napari keeps only a weak reference
        self._show()

    def close(self) -> None:
        """Follow changes no longer; the labels may be deleted already."""
        self._changed.disconnect(self._show)

    def _show(self, event: object = None) -> None:
        shown = {**self._panel_keys, **texts()}
        for action, label in self._labels.items():
            label.show_key(shown[action].partition(OR)[0])


def _chosen(key: Key) -> list[Any]:
    from app_model.types import KeyBinding
    from napari.settings import get_settings

    chosen: Iterable[Any] | None = get_settings().shortcuts.shortcuts.get(_PREFIX + key.action)
    return [KeyBinding.from_str(key.default)] if chosen is None else list(chosen)


def _pressed(action: str, opened_in: Callable[[Any], Any]) -> Any:
    def press(viewer: Any) -> None:
        if (widget := opened_in(viewer)) is not None:
            widget.press(action)

    return press
