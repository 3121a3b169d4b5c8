"""Reads scans of all formats as volumes. Scans that cannot be trusted are refused with a reason."""
