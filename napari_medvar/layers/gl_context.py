"""`make_canvas_current`: prevents a crash of napari when a layer is deleted.

napari (0.9.2, `VispyCanvas._clean_and_update_scenegraph`) frees the OpenGL objects of a removed layer in the current
context, which is often not that of the canvas. With Mesa, drawing another layer that had been hidden then crashes the
process, and this plugin keeps hidden layers. The canvas's context is therefore made current just before a layer is
removed. This must continue after the widget is closed, because its layers stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    import napari

_watched: WeakSet[QWidget] = WeakSet()  # windows


def make_canvas_current(viewer: napari.Viewer, widget: QWidget) -> None:
    """Make the OpenGL context of the canvas current whenever a layer of ``viewer`` is about to be removed.

    ``widget`` is any widget in the viewer's window, or in a floating dock of it.
    """
    window = widget.window()
    while window is not None and (outer := window.parentWidget()) is not None:
        window = outer.window()
    if window is None or window in _watched:
        return
    _watched.add(window)

    def removing(event: object = None) -> None:
        canvases: list[Any] = window.findChildren(QWidget) if isalive(window) else []
        for canvas in canvases:
            if hasattr(canvas, "makeCurrent") and canvas.isValid():
                canvas.makeCurrent()

    viewer.layers.events.removing.connect(removing)
