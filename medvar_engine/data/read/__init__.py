"""Scans of all formats as volumes. What cannot be trusted is refused with a reason."""
