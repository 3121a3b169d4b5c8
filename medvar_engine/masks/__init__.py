"""Masks: label maps of slices. A mask holds the number of the structure at each pixel; 0 means none."""
