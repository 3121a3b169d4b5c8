"""Keys that work wherever the mouse is in napari's window.

They are napari's own shortcuts: Preferences › Shortcuts lists them, and there they can be changed. Keys that napari
uses itself are left alone, which is why Undo and Stop have theirs in the panel only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_PREFIX = "napari-medvar:"


@dataclass(frozen=True, slots=True)
class Key:
    """An action of the widget, and its key unless the user has chosen another."""

    action: str  # the name of a button, see `MedvarWidget.press`
    text: str
    default: str


KEYS = (
    Key("generate", "Generate, or finish unfinished images", "Ctrl+Enter"),
    Key("step", "Make one scale more", "Ctrl+."),
    Key("resample", "Resample from the chosen scale", "Ctrl+Shift+R"),
    Key("flip", "Before and after the last edit", "Ctrl+B"),
    Key("coarser", "Look at the scale before", "Shift+Left"),
    Key("finer", "Look at the next scale", "Shift+Right"),
)


def register(opened_in: Callable[[Any], Any]) -> None:
    """Tell napari of the actions, and bind the keys that the user has chosen, or else the first ones.

    ``opened_in`` gives the widget in a viewer's window, or None.
    """
    from napari.components import ViewerModel
    from napari.utils.action_manager import action_manager

    for key in KEYS:
        name = _PREFIX + key.action
        action_manager.register_action(name, _pressed(key.action, opened_in), f"MedVAR: {key.text}", ViewerModel)
        for binding in _chosen(key):
            action_manager.bind_shortcut(name, binding)


def texts() -> dict[str, str]:
    """The keys of all actions as a person reads them, as they are now; empty for one without a key."""
    return {key.action: " or ".join(map(str, _chosen(key))) for key in KEYS}


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
