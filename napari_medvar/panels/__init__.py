"""The panels of the widget, one per file.

A panel shows values and emits signals; it holds no state and starts no work.
"""
