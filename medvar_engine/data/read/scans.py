"""Finds and reads scans of all formats below a folder; unusable ones are refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medvar_engine.data.read import volume_files
from medvar_engine.data.read.archive import extracted, inside, is_archive
from medvar_engine.data.read.assumed_geometry import NOTHING, Assumed
from medvar_engine.data.read.dicom_copies import without_copies
from medvar_engine.data.read.dicom_file import looks_like_dicom
from medvar_engine.data.read.dicom_group import Scan, group, grouped, localizers, name_scans
from medvar_engine.data.read.dicom_header import Header, read_headers
from medvar_engine.data.read.folder import files_below
from medvar_engine.data.read.read_dicom import DicomScan, scan_of
from medvar_engine.data.read.refusal import Refusal, reason_of
from medvar_engine.data.read.volume import MINIMUM_SLICES, Volume
from medvar_engine.errors import MedvarError

__all__ = ["LOOKED_FOR", "Refusal", "Series", "find_series"]

LOOKED_FOR = (
    "DICOM files (any name), NIfTI (.nii, .nii.gz, .hdr with .img), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), "
    "and archives of them (.zip, .tar, .tar.gz, .tgz)"
)

_PLANNING = "a localizer by its few thick slices in three planes: planning images, not a scan"


@dataclass(frozen=True, slots=True)
class Series:
    """The files of one scan, and the information from their headers. Pixels are read by `load` only.

    ``modality``, ``region`` and ``patient`` are None if the headers do not contain them. ``patient_guessed`` is True if
    only file names or study numbers distinguish patients. ``data_files`` hold the voxels if ``path`` is a header only.
    ``synthetic`` is whether all files are marked as made by a generative model; such a series may be a single slice.
    ``scan`` is the information of DICOM headers, and ``distinguished_by`` names what distinguishes volumes.
    ``assumed`` are orientation and voxel size for files of other formats without them.

    A series in an ``archive`` has paths such as ``study.zip!/folder/file``, which cannot be opened directly. All fields
    are plain values, so a series can be sent to another process that sees the same files, and loaded there.
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
    scan: DicomScan | None = None
    distinguished_by: tuple[str, ...] = ()
    assumed: Assumed = NOTHING

    @property
    def path(self) -> Path:
        """The file, or the first file of several."""
        return self.paths[0]

    @property
    def is_dicom(self) -> bool:
        """Whether the files are DICOM."""
        return self.scan is not None

    def remarks(self, *, phase_step: int = 8, diffusion: str = "b0") -> tuple[str, ...]:
        """Remarks about how the images of a series were distinguished, and which of several volumes `load` reads."""
        if not self.distinguished_by:
            return ()
        said = f"its images are distinguished by {', '.join(self.distinguished_by)}"
        if self.scan is None or len(self.scan.stacks) < 2:
            return (f"several scans share its series; {said}",)
        used = f"{len(self.scan.chosen(phase_step, diffusion))} of {len(self.scan.stacks)}"
        if not self.scan.is_diffusion:
            return (f"{used} volumes are used (--phase-step); {said}",)
        return (f"{used} diffusion volumes are used (--diffusion b0 or all); {said}",)

    def load(self, *, phase_step: int = 8, diffusion: str = "b0", minimum: int | None = None) -> Iterator[Volume]:
        """Read the pixels: one volume, or every ``phase_step``-th phase of a series over time.

        For a diffusion scan, the volumes with the lowest b-value are read, or ``all``.
        A series with fewer slices than ``minimum`` is refused; the default is the least number for a scan.
        From an archive, the files of the series are unpacked into a temporary folder, which is removed at the end.
        Raises `MedvarError` naming the file when the series cannot be used.
        """
        if self.archive is None:
            yield from self._load(self.paths, phase_step, diffusion, minimum)
            return
        root = inside(self.archive)
        members = [path.relative_to(root).as_posix() for path in (*self.paths, *self.data_files)]
        with extracted(self.archive, members) as (folder, refusals):
            for refusal in refusals:
                raise MedvarError(str(refusal))
            try:
                unpacked = [folder / path.relative_to(root) for path in self.paths]
                for volume in self._load(unpacked, phase_step, diffusion, minimum):
                    yield replace(volume, source=self.path)
            except MedvarError as error:
                raise MedvarError(str(error).replace(str(folder), str(root))) from error

    def _load(self, paths: Sequence[Path], phase_step: int, diffusion: str, minimum: int | None) -> Iterator[Volume]:
        if minimum is None:
            minimum = 1 if self.synthetic else MINIMUM_SLICES
        if self.scan is not None:
            return self.scan.load(paths, self.uid, phase_step, diffusion, minimum)
        return volume_files.load(paths[0], self.uid, phase_step, minimum, self.assumed)


def find_series(
    source: Path, *, synthetic: bool = False, assumed: Assumed = NOTHING
) -> tuple[list[Series], list[Refusal]]:
    """All series in a file or below a folder, including archives, in a stable order, and the refused files.

    Images made by a generative model are refused unless ``synthetic`` accepts them. NIfTI, NRRD and MetaImage files
    without orientation are refused unless it is ``assumed``.
    """
    if not source.exists():
        raise MedvarError(f"{source} does not exist.")
    paths, refusals = files_below(source)
    series, refused = _find([path for path in paths if not is_archive(path)], synthetic, assumed)
    refusals += refused
    for archive in filter(is_archive, paths):
        try:
            found, refused = _find_inside(archive, synthetic, assumed)
        except Exception as error:
            refusals.append(_refusal(archive, error))
            continue
        series += found
        refusals += refused
    return sorted(series, key=lambda one: (one.path, one.uid)), refusals


def _find(paths: Sequence[Path], synthetic: bool, assumed: Assumed) -> tuple[list[Series], list[Refusal]]:
    """The series of regular files on the disk."""
    series: list[Series] = []
    refusals: list[Refusal] = []
    headers: list[Header] = []
    for path in paths:
        try:
            if volume_files.is_volume_file(path):
                beside, made = volume_files.check(path, synthetic=synthetic, assumed=assumed)
                about = None, None, None, True
                series.append(Series(str(path), (path,), *about, beside, synthetic=made, assumed=assumed))
            elif looks_like_dicom(path):
                found, left_out = read_headers(path, synthetic=synthetic)
                headers += found
                refusals += [Refusal(str(path), reason) for reason in left_out]
        except Exception as error:  # libraries raise exceptions of any type, and no file may end a run
            refusals.append(_refusal(path, error))
    for same in grouped(headers, lambda one: one.series_uid):
        try:
            found_series, refused = _of_dicom(same)
        except Exception as error:  # as above, for odd values that are not of one file alone
            found_series, refused = [], [_refusal(same[0].path, error)]
        series += found_series
        refusals += refused
    return series, refusals


def _of_dicom(headers: Sequence[Header]) -> tuple[list[Series], list[Refusal]]:
    """The scans of one SeriesInstanceUID."""
    headers, refusals = without_copies(headers)
    planning = localizers(headers)
    refusals += [Refusal(str(path), _PLANNING) for path in dict.fromkeys(header.path for header in planning)]
    left = {id(header) for header in planning}
    scans = name_scans(group([one for one in headers if id(one) not in left]))
    return [_series(name, scan) for name, scan in scans.items()], refusals


def _series(name: str, scan: Scan) -> Series:
    first = scan.first
    dicom, files = scan_of(scan.volumes)
    made = all(header.synthetic for volume in scan.volumes for header in volume)
    about = first.modality, first.region, first.patient, first.patient_guessed
    return Series(name, files, *about, synthetic=made, scan=dicom, distinguished_by=scan.distinguished_by)


def _find_inside(archive: Path, synthetic: bool, assumed: Assumed) -> tuple[list[Series], list[Refusal]]:
    root = inside(archive)

    with extracted(archive) as (folder, refusals):

        def named(path: Path) -> Path:
            return root / path.relative_to(folder)

        paths, _ = files_below(folder)
        series, refused = _find(paths, synthetic, assumed)
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


def _refusal(path: Path, error: Exception) -> Refusal:
    return Refusal(str(path), reason_of(error).removeprefix(f"{path}: "))
