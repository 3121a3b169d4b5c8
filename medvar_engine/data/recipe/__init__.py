"""Recipes of data sets, which describe their files by name patterns and index files."""
