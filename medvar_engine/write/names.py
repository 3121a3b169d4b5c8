"""Names of files, of words that strangers chose."""

from __future__ import annotations

import re


def slug(word: str) -> str:
    """A label as a part of a file name: no part of it may name a folder."""
    return re.sub(r"[^a-z0-9]+", "_", word.lower())
