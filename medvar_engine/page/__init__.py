"""HTML reports as single files, without scripts or external resources, and with all text escaped."""
