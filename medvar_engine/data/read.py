"""Find scans below a folder and read them, whatever their format; what cannot be used is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.data import dicom_header, read_dicom, read_files
from medvar_engine.data.volume import Volume
from medvar_engine.errors import MedvarError

LOOKED_FOR = "DICOM files (any name), NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd)"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file or series that was not used, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Series:
    """Files that make one scan, and what their headers say of it. Pixels are read by `load` only.

    ``modality``, ``region`` and ``patient`` are None where the headers do not say. ``patient_guessed`` is True when
    only file names or study numbers tell people apart.
    """

    uid: str
    paths: tuple[Path, ...]
    modality: str | None
    region: str | None
    patient: str | None
    patient_guessed: bool = False

    @property
    def path(self) -> Path:
        """The file, or the first file of several."""
        return self.paths[0]

    @property
    def is_dicom(self) -> bool:
        """Whether `path` is DICOM; the other formats are known by their suffix."""
        return not read_files.is_volume_file(self.path)

    def load(self, *, phase_step: int = 8) -> Iterator[Volume]:
        """Read the pixels: one volume, or every ``phase_step``-th phase of a series over time.

        Raises `MedvarError` naming the file when the series cannot be used.
        """
        if self.is_dicom:
            yield from read_dicom.load(self.paths, self.uid, phase_step)
        else:
            yield from read_files.load(self.path, self.uid, phase_step)


def find_series(source: Path) -> tuple[list[Series], list[Refusal]]:
    """All series in a file or below a folder, in a stable order, and the files that are refused."""
    if not source.exists():
        raise MedvarError(f"{source} does not exist.")
    below = [source] if source.is_file() else sorted(source.rglob("*"))
    paths = [path for path in below if path.is_file() and not path.name.startswith(".")]
    series: list[Series] = []
    refusals: list[Refusal] = []
    headers: list[dicom_header.Header] = []
    for path in paths:
        if read_files.is_volume_file(path):
            if read_files.is_label_name(path):
                refusals.append(Refusal(str(path), "its name says that it is a label map, not an image"))
            else:
                series.append(Series(str(path), (path,), None, None, None, patient_guessed=True))
        elif dicom_header.looks_like_dicom(path):
            try:
                headers.append(dicom_header.read_header(path))
            except MedvarError as error:
                refusals.append(Refusal(str(path), str(error)))
    for name, group in dicom_header.name_groups(dicom_header.group(headers)).items():
        first = group[0]
        series.append(
            Series(
                name,
                tuple(header.path for header in group),
                first.modality,
                first.region,
                first.patient,
                first.patient_guessed,
            )
        )
    return sorted(series, key=lambda one: (one.path, one.uid)), refusals
