"""Scans to slices: read, group, harmonise, slice, split, shard. `prepare.prepare` runs the whole room."""
