"""Checks the extensions of a NIfTI header before nibabel reads them, and keeps nibabel from logging."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import nibabel as nib

LARGEST_EXTENSIONS = 16 * 2**20  # bytes of all extensions of a file
_MOST_EXTENSIONS = 1000
_SMALLEST = 8  # bytes of size and code; nibabel takes a smaller size for the whole rest of the file
_STEP = 16  # bytes; sizes are multiples of it


def check_extensions(content: bytes, header: int, end: int, *, little_endian: bool) -> None:
    """Raise `ValueError` when the extensions after a header of ``header`` bytes are too many or malformed.

    ``content`` is the beginning of the file; extensions lie before byte ``end``, where the voxels begin.
    """
    at, count = header + 4, 0
    if content[header : header + 1] in (b"", b"\0"):
        return
    end = min(end, len(content))
    while end - at >= _STEP:
        size = int.from_bytes(content[at : at + 4], "little" if little_endian else "big", signed=True)
        count += 1
        if count > _MOST_EXTENSIONS:
            raise ValueError(f"its header has more than {_MOST_EXTENSIONS} extensions")
        if size < _SMALLEST:
            raise ValueError(f"an extension of its header claims {size} bytes")
        at += size


@contextmanager
def quiet() -> Iterator[None]:
    """Keep nibabel from logging what it finds in a header: the words are those of a stranger."""
    logger = nib.imageglobals.logger
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
