"""A guard against a crash of napari when a layer is deleted.

napari (0.9.2, `VispyCanvas._clean_and_update_scenegraph`) frees a removed layer's OpenGL objects in whatever
context happens to be current, which is often not the canvas's. With Mesa, drawing another layer that had been
hidden then crashes the process; and hidden layers are what this plugin keeps. Making the canvas's context
current just before the removal is all it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    import napari


class CanvasContextGuard:
    """Makes the OpenGL context of the canvas beside ``widget`` current whenever a layer is about to be removed."""

    def __init__(self, viewer: napari.Viewer, widget: QWidget) -> None:
        self._widget = widget
        viewer.layers.events.removing.connect(self._removing)  # napari holds this weakly

    def _removing(self, event: object = None) -> None:
        window = self._widget.window()
        canvases: list[Any] = [] if window is None else window.findChildren(QWidget)
        for canvas in canvases:
            if hasattr(canvas, "makeCurrent") and canvas.isValid():
                canvas.makeCurrent()
