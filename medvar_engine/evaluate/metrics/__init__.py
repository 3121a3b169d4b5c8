"""Metrics of two sets of features, with intervals."""
