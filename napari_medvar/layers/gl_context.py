"""`CanvasContextGuard`: prevents a crash of napari when a layer is deleted.

napari (0.9.2, `VispyCanvas._clean_and_update_scenegraph`) frees the OpenGL objects of a removed layer in the current
context, which is often not that of the canvas. With Mesa, drawing another layer that had been hidden then crashes the
process, and this plugin keeps hidden layers. The guard makes the canvas's context current just before a layer is
removed.
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
        viewer.layers.events.removing.connect(self._removing)  # napari keeps only a weak reference

    def _removing(self, event: object = None) -> None:
        window = self._widget.window()
        canvases: list[Any] = [] if window is None else window.findChildren(QWidget)
        for canvas in canvases:
            if hasattr(canvas, "makeCurrent") and canvas.isValid():
                canvas.makeCurrent()
