"""Find scans below a folder and read them, whatever their format; what cannot be used is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medvar_engine.data import read_dicom, read_files
from medvar_engine.data.archive import extracted, inside, is_archive
from medvar_engine.data.dicom_file import looks_like_dicom
from medvar_engine.data.dicom_group import group, name_groups
from medvar_engine.data.dicom_header import Header, read_header
from medvar_engine.data.folder import files_below
from medvar_engine.data.refusal import Refusal
from medvar_engine.data.volume import MINIMUM_SLICES, Volume
from medvar_engine.errors import MedvarError

__all__ = ["LOOKED_FOR", "Refusal", "Series", "find_series"]

LOOKED_FOR = (
    "DICOM files (any name), NIfTI (.nii, .nii.gz, .hdr with .img), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), "
    "and archives of them (.zip, .tar, .tar.gz, .tgz)"
)


@dataclass(frozen=True, slots=True)
class Series:
    """Files that make one scan, and what their headers say of it. Pixels are read by `load` only.

    ``modality``, ``region`` and ``patient`` are None where the headers do not say. ``patient_guessed`` is True when
    only file names or study numbers tell people apart. ``data_files`` hold the voxels where ``path`` is a header alone.
    ``synthetic`` is whether all files say that a generative model made them; such a series may be a single slice.

    A series in an ``archive`` has paths such as ``study.zip!/folder/file``, which name it but cannot be opened. All
    fields are plain values, so a series may be sent to another process that sees the same files, and loaded there.
    """

    uid: str
    paths: tuple[Path, ...]
    modality: str | None
    region: str | None
    patient: str | None
    patient_guessed: bool = False
    data_files: tuple[Path, ...] = ()
    archive: Path | None = None
    synthetic: bool = False

    @property
    def path(self) -> Path:
        """The file, or the first file of several."""
        return self.paths[0]

    @property
    def is_dicom(self) -> bool:
        """Whether `path` is DICOM; the other formats are known by their suffix."""
        return not read_files.is_volume_file(self.path)

    def load(self, *, phase_step: int = 8, minimum: int | None = None) -> Iterator[Volume]:
        """Read the pixels: one volume, or every ``phase_step``-th phase of a series over time.

        A series of fewer slices than ``minimum`` is refused, by default than a scan has.
        Of an archive, the series' own files are unpacked into a temporary folder, which goes when the iterator ends.
        Raises `MedvarError` naming the file when the series cannot be used.
        """
        if self.archive is None:
            yield from self._load(self.paths, phase_step, minimum)
            return
        root = inside(self.archive)
        members = [path.relative_to(root).as_posix() for path in (*self.paths, *self.data_files)]
        with extracted(self.archive, members) as (folder, refusals):
            for refusal in refusals:
                raise MedvarError(str(refusal))
            try:
                for volume in self._load([folder / path.relative_to(root) for path in self.paths], phase_step, minimum):
                    yield replace(volume, source=self.path)
            except MedvarError as error:
                raise MedvarError(str(error).replace(str(folder), str(root))) from error

    def _load(self, paths: Sequence[Path], phase_step: int, minimum: int | None) -> Iterator[Volume]:
        if minimum is None:
            minimum = 1 if self.synthetic else MINIMUM_SLICES
        if self.is_dicom:
            return read_dicom.load(paths, self.uid, phase_step, minimum)
        return read_files.load(paths[0], self.uid, phase_step, minimum)


def find_series(source: Path, *, synthetic: bool = False) -> tuple[list[Series], list[Refusal]]:
    """All series in a file or below a folder, archives too, in a stable order, and what is refused.

    Images that say a generative model made them are refused, unless ``synthetic`` asks for them.
    """
    if not source.exists():
        raise MedvarError(f"{source} does not exist.")
    paths, refusals = files_below(source)
    series, refused = _find([path for path in paths if not is_archive(path)], synthetic)
    refusals += refused
    for archive in filter(is_archive, paths):
        try:
            found, refused = _find_inside(archive, synthetic)
        except MedvarError as error:
            refusals.append(_refusal(archive, error))
            continue
        series += found
        refusals += refused
    return sorted(series, key=lambda one: (one.path, one.uid)), refusals


def _find(paths: Sequence[Path], synthetic: bool) -> tuple[list[Series], list[Refusal]]:
    """Series of plain files that lie on disk."""
    series: list[Series] = []
    refusals: list[Refusal] = []
    headers: list[Header] = []
    for path in paths:
        try:
            if read_files.is_volume_file(path):
                beside, made = read_files.check(path, synthetic=synthetic)
                series.append(Series(str(path), (path,), None, None, None, True, beside, synthetic=made))
            elif looks_like_dicom(path):
                headers.append(read_header(path, synthetic=synthetic))
        except MedvarError as error:
            refusals.append(_refusal(path, error))
    for name, members in name_groups(group(headers)).items():
        first = members[0]
        paths_of_one = tuple(header.path for header in members)
        made = all(header.synthetic for header in members)
        about = first.modality, first.region, first.patient, first.patient_guessed
        series.append(Series(name, paths_of_one, *about, synthetic=made))
    return series, refusals


def _find_inside(archive: Path, synthetic: bool) -> tuple[list[Series], list[Refusal]]:
    root = inside(archive)

    with extracted(archive) as (folder, refusals):

        def named(path: Path) -> Path:
            return root / path.relative_to(folder)

        paths, _ = files_below(folder)
        series, refused = _find(paths, synthetic)
        if not series and not refused and not refusals:
            raise MedvarError(f"{archive}: no images in it; looked for {LOOKED_FOR}.")
        refusals += [
            Refusal(one.path.replace(str(folder), str(root)), one.reason.replace(str(folder), str(root)))
            for one in refused
        ]
        return [
            replace(
                one,
                uid=one.uid.replace(str(folder), str(root)),
                paths=tuple(map(named, one.paths)),
                data_files=tuple(map(named, one.data_files)),
                archive=archive,
            )
            for one in series
        ], refusals


def _refusal(path: Path, error: MedvarError) -> Refusal:
    return Refusal(str(path), str(error).removeprefix(f"{path}: "))
