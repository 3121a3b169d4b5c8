"""Freed memory given back to the system, where the C library keeps it."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def give_back() -> None:
    """Let the system have what was freed. Takes about a millisecond; does nothing but on Linux with glibc.

    glibc keeps freed blocks for later ones. Between keys and values, which stay, such gaps are seldom as large as the
    next scale asks for: of 8 images they came to as much as the keys and values themselves.
    """
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Any:
    """The C library's ``malloc_trim``; None where there is none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
