"""`read_file`: what a file to open contains, a session or the trace of an image. Reading takes long for large ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medvar_engine.generate.trace import Trace
from medvar_engine.write.provenance import read_trace
from napari_medvar.session.session_file import SUFFIX, SavedSession, read_session


@dataclass(frozen=True, eq=False, slots=True)
class FileContent:
    """The content of a session file, or of an image that medvar wrote."""

    path: Path
    content: SavedSession | Trace


def read_file(path: Path) -> FileContent:
    """Read a session (``*.medvar``) or the trace of an image. Raises `MedvarError` for a damaged file."""
    return FileContent(path, read_session(path) if path.suffix.lower() == SUFFIX else read_trace(path))
