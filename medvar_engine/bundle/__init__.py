"""Bundles: folders of exported models. This package finds, reads, extends and signs them."""
