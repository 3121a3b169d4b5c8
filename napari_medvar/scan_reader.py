"""napari's reader of the user's own scans: DICOM, NIfTI, NRRD and MetaImage. It writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medvar_engine.errors import MedvarError
from napari_medvar.layers.scan_layers import read_scans, shortened

SUFFIXES = (".dcm", ".dcm.gz", ".dicom", ".ima", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_LOOKED_INTO = 50  # files of a folder that are checked for DICOM


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """The reader function for scans; None for other paths. napari calls this with the files or folders to open."""
    return _read_in_napari if all(map(_may_be_scan, _listed(path))) else None


def _read_in_napari(path: str | Sequence[str]) -> list[Any]:
    """`read_scans`, but errors are shown in their own words."""
    layers: list[Any] = []
    for one in _listed(path):
        try:
            scans = read_scans(Path(one).absolute())
        except MedvarError as error:
            _report(str(error))
            continue
        layers += scans.layers
        if scans.refused:
            _report(shortened(scans.refused))
    return layers or [(None,)]  # npe2's value for "handled, no layers"


def _report(text: str) -> None:
    """Show what was refused: in the widget if it is visible, where it stays, or else as a notification of napari."""
    import napari
    from napari.utils.notifications import show_error

    from napari_medvar.widget import opened_in

    viewer = napari.current_viewer()
    widget = opened_in(viewer) if viewer is not None else None
    (widget.add_error if widget is not None and widget.isVisible() else show_error)(text)


def _may_be_scan(path: str) -> bool:
    if os.path.isdir(path):
        return any(map(_is_scan_file, _few_files(Path(path))))
    return path.lower().endswith(SUFFIXES)


def _is_scan_file(path: Path) -> bool:
    from medvar_engine.data.read.dicom_file import looks_like_dicom

    try:
        return path.name.lower().endswith(SUFFIXES) or looks_like_dicom(path)
    except MedvarError:
        return False


def _few_files(folder: Path) -> Iterator[Path]:
    seen = 0
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            yield Path(root) / name
            seen += 1
            if seen >= _LOOKED_INTO:
                return


def _listed(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path
