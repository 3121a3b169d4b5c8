"""Bundles: the folders that exported models live in. Read, found, extended and signed here."""
