"""Readers of untrusted JSON, NumPy and YAML files, with limits of size and depth and without code execution."""
