"""A session of the plugin: its images, their history and its file. It uses neither Qt nor napari."""
