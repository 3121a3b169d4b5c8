"""The images that are judged, and baselines beside them."""
