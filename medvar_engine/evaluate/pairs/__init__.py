"""Evaluation of images with masks: usefulness for segmentation, how well masks fit images, and copies of masks."""
