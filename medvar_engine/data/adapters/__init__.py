"""Prepared slices in the formats of other training libraries."""
