"""The images of an evaluation, and baseline images for comparison."""
