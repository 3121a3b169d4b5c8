"""From scans to slices: reading, grouping, harmonising, slicing, splitting and sharding; see `prepare.prepare`."""
