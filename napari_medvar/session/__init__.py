"""One sitting of the plugin: its images, their history and its file. No Qt and no napari."""
