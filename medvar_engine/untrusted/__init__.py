"""JSON, NumPy and YAML files of strangers: bounded in size and depth, and nothing runs."""
