"""Functions by which napari's menus and readers open and use the widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

    from napari_medvar.controllers.structures_controller import StructuresController
    from napari_medvar.widget import MedvarWidget


def start_from_layer() -> None:
    """Open the widget and encode the active layer as an image. The layer list's menu calls this."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        widget_of(viewer).start_from_layer()


def paint_structures() -> None:
    """Add a Labels layer with the structures of the model, to paint on (in the menu of new layers)."""
    _with_structures(lambda structures: structures.paint())


def draw_to_labels() -> None:
    """Generate new images for the mask in the active Labels layer (in the menu of the layer list)."""
    _with_structures(lambda structures: structures.draw())


def redraw_to_labels() -> None:
    """Regenerate the current image with the mask in the active Labels layer (in the menu of the layer list)."""
    _with_structures(lambda structures: structures.redraw())


def _with_structures(action: Callable[[StructuresController], None]) -> None:
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        widget = widget_of(viewer)
        widget.when_idle(lambda: action(widget.structures))


def widget_of(viewer: napari.Viewer) -> MedvarWidget:
    """The widget in a viewer's window; opens it if it is not open yet."""
    from napari_medvar.widget import opened_in

    if (widget := opened_in(viewer)) is not None:
        return widget
    _, opened = viewer.window.add_plugin_dock_widget("napari-medvar", "MedVAR Generate")
    return getattr(opened, "__wrapped__", opened)  # type: ignore[no-any-return]
