"""Label maps beside scans: which belongs to which scan, whether it lies on it, and its slices."""
