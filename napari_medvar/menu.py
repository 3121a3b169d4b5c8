"""What the plugin adds to napari's menus beside the widget itself."""

from __future__ import annotations


def start_from_layer() -> None:
    """For the layer list's menu: open the widget, and make the active layer a picture."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        _, widget = viewer.window.add_plugin_dock_widget("napari-medvar", "MedVAR Generate")
        getattr(widget, "__wrapped__", widget).start_from_layer()
