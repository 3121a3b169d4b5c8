"""Images with masks: segmenters that learn from them, how well masks fit images, and copies of masks."""
