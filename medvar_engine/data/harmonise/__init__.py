"""Harmonisation: value range, orientation, spacing and size of scans, and cutting into slices."""
