"""What napari's menus and readers do with the widget."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

    from napari_medvar.widget import MedvarWidget


def start_from_layer() -> None:
    """For the layer list's menu: open the widget, and make the active layer a picture."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        widget_of(viewer).start_from_layer()


def widget_of(viewer: napari.Viewer) -> MedvarWidget:
    """The widget in a viewer's window, opened when there is none yet."""
    from napari_medvar.widget import opened_in

    if (widget := opened_in(viewer)) is not None:
        return widget
    _, opened = viewer.window.add_plugin_dock_widget("napari-medvar", "MedVAR Generate")
    return getattr(opened, "__wrapped__", opened)  # type: ignore[no-any-return]
