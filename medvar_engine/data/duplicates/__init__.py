"""Fingerprints of slices, and which slices show the same image."""
