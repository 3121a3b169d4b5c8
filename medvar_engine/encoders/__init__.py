"""Encoders, which map images to features, and the sources of images for them."""
