"""Images, maps and masks as napari layers."""
