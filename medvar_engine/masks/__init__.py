"""Masks: label maps of slices. A mask holds, of each pixel, the number of the structure that it shows; 0 is none."""
