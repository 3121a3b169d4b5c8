"""Recipes of data sets: what their files are, by patterns of names and index files."""
