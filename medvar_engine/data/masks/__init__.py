"""Label maps of scans: matching them to scans, checking their geometry, and reading them as masks."""
