"""Scans made comparable: value range, orientation, spacing, size, and cut into slices."""
