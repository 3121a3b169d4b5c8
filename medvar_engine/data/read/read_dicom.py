"""Reads the pixels of one DICOM series as volumes: frames of one or many files, and cine loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from medvar_engine.data.read.dicom_decode import PixelFile
from medvar_engine.data.read.dicom_geometry import FrameGeometry, stack_affine
from medvar_engine.data.read.dicom_header import Header
from medvar_engine.data.read.dicom_pixels import fill_padding, measured
from medvar_engine.data.read.dicom_stored import Scale, StoredPixels
from medvar_engine.data.read.dicom_turn import UNTURNED, Turn
from medvar_engine.data.read.header_limits import check_packed
from medvar_engine.data.read.label_maps import looks_like_labels
from medvar_engine.data.read.orientation import check_finite, to_ras
from medvar_engine.data.read.volume import MINIMUM_SLICES, Volume
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """One frame: the index of its file, its index in the file, its geometry, and the scale of its values.

    ``position`` and ``orientation`` are in LPS mm, ``spacing`` is that of rows and columns in mm; None if unknown.
    They are those of the frame after its ``turn``.
    """

    file: int
    index: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    scale: Scale
    turn: Turn = UNTURNED


@dataclass(frozen=True, slots=True)
class FrameStack:
    """The frames of one volume and its b-value; for a cine loop without positions only the first frame."""

    frames: tuple[PlacedFrame, ...]
    b_value: float | None = None
    cine: bool = False


@dataclass(frozen=True, slots=True)
class DicomScan:
    """The information from the headers of one scan: how each file stores its pixels, and the frames of each volume.

    ``patient`` is None if no header names one. All fields are plain values.
    """

    modality: str
    patient: str | None
    files: tuple[StoredPixels, ...]
    stacks: tuple[FrameStack, ...]

    def load(
        self, paths: Sequence[Path], uid: str, phase_step: int, diffusion: str = "b0", minimum: int = MINIMUM_SLICES
    ) -> Iterator[Volume]:
        """Read the pixels of the files ``paths`` as volumes of at least ``minimum`` slices; geometry is checked here.

        Of several volumes every ``phase_step``-th is read; of a diffusion scan those with the lowest b-value, or
        ``all``.
        """
        self._check_compressed(paths)
        opened = _Opened(paths, self.files)
        for number in self.chosen(phase_step, diffusion):
            stack = self.stacks[number]
            try:
                if stack.cine:
                    yield _load_cine(self, opened, stack, uid)
                else:
                    yield _load_stack(self, opened, stack, uid, self._name(number), minimum)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise MedvarError(f"{paths[0]}: a value in its header is missing or malformed ({error!r}).") from error
            except MemoryError as error:
                raise MedvarError(
                    f"{paths[0]}: there is not enough memory for its {len(stack.frames)} frames."
                ) from error

    def _check_compressed(self, paths: Sequence[Path]) -> None:
        """Raise `MedvarError` if compressed files together claim far more than they hold."""
        pairs = [(path, file) for path, file in zip(paths, self.files, strict=True) if file.compressed]
        voxels = sum(file.voxels for _, file in pairs)
        claimed = sum(file.unpacked_bytes for _, file in pairs)
        check_packed(paths[0], voxels, claimed, sum(path.stat().st_size for path, _ in pairs))

    @property
    def is_diffusion(self) -> bool:
        """Whether several volumes differ in diffusion weighting."""
        return len({stack.b_value for stack in self.stacks}) > 1

    def chosen(self, phase_step: int, diffusion: str) -> list[int]:
        """The indices of the volumes to read."""
        indices = list(range(len(self.stacks)))
        if not self.is_diffusion:
            return indices[::phase_step]
        if diffusion == "all":
            return indices
        lowest = min(stack.b_value or 0.0 for stack in self.stacks)
        return [index for index in indices if (self.stacks[index].b_value or 0.0) == lowest][::phase_step]

    def _name(self, number: int) -> str | None:
        if len(self.stacks) == 1:
            return None
        of = f"{number + 1} of {len(self.stacks)}"
        return f"b {self.stacks[number].b_value or 0:g}, volume {of}" if self.is_diffusion else f"phase {of}"


def scan_of(volumes: Sequence[Sequence[Header]]) -> tuple[DicomScan, tuple[Path, ...]]:
    """The `DicomScan` of the headers of ``volumes``, and its files."""
    members = [header for volume in volumes for header in volume]
    first = members[0]
    files = {header.path: header.stored for header in members}
    numbers = {path: number for number, path in enumerate(files)}

    def placed(one: Header) -> PlacedFrame:
        geometry = one.position, one.orientation, one.spacing
        return PlacedFrame(numbers[one.path], one.index, *geometry, one.scale, one.turn)

    stacks = tuple(FrameStack(tuple(map(placed, volume)), volume[0].b_value, volume[0].cine) for volume in volumes)
    patient = None if first.patient_guessed else first.patient
    return DicomScan(first.modality, patient, tuple(files.values()), stacks), tuple(files)


class _Opened:
    """The files of a series; the last one stays open, because it may hold frames of several volumes."""

    def __init__(self, paths: Sequence[Path], files: Sequence[StoredPixels]) -> None:
        self.paths = paths
        self._files = files
        self._last: tuple[int, PixelFile] | None = None

    def file(self, index: int) -> PixelFile:
        if self._last is None or self._last[0] != index:
            self._last = index, PixelFile(self.paths[index], self._files[index])
        return self._last[1]


def _load_stack(
    scan: DicomScan, opened: _Opened, stack: FrameStack, uid: str, name: str | None, minimum: int
) -> Volume:
    first = opened.paths[stack.frames[0].file]
    _check_scales(first, [(opened.paths[one.file], one.scale) for one in stack.frames])
    geometry = [_frame_geometry(opened.paths[one.file], one) for one in stack.frames]
    numbers = range(len(stack.frames))
    order, affine = stack_affine(geometry, first, minimum, lambda: _values(scan, opened, stack, numbers))
    places = {number: place for place, number in enumerate(order)}
    array = _values(scan, opened, stack, [places[number] for number in numbers])
    # Frames that are each of one value are blank, and no labels.
    if looks_like_labels(array) and (array.min(axis=(1, 2)) < array.max(axis=(1, 2))).any():
        raise MedvarError(f"{first}: its values are those of a label map, not of an image.")
    turned, affine, spacing = to_ras(array.T, affine, first)
    return Volume(turned, affine, spacing, scan.modality, scan.patient, uid, first, name)


def _check_scales(first: Path, scales: Sequence[tuple[Path, Scale]]) -> None:
    """Raise `MedvarError` if some slices have a slope or an intercept and others have none (PS3.3 C.11.1)."""
    for name, values in (
        ("RescaleSlope", [scale.slope for _, scale in scales]),
        ("RescaleIntercept", [scale.intercept for _, scale in scales]),
    ):
        without = [
            path for (path, scale), value in zip(scales, values, strict=True) if value is None and scale.fault is None
        ]
        if 0 < len(without) < len(scales):
            names = list(dict.fromkeys(path.name for path in without))
            raise MedvarError(
                f"{first}: {len(without)} of {len(scales)} slices have no {name} and the others have: "
                f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}. Their values cannot be compared."
            )


def _values(scan: DicomScan, opened: _Opened, stack: FrameStack, places: Sequence[int]) -> FloatArray:
    """The values of all frames (N, rows, columns) in order of position, with padding filled."""
    array: FloatArray | None = None
    padded = False
    for number, members in groupby(zip(stack.frames, places, strict=True), key=lambda one: one[0].file):
        file, placed = opened.file(number), list(members)
        padded |= file.stored.padding is not None
        pixels = file.frames([frame.index for frame, _ in placed])
        for (frame, place), pixels_of_frame in zip(placed, pixels, strict=True):
            one = frame.turn.pixels(pixels_of_frame)
            if array is None:  # allocated when the first frame is decoded
                array = np.empty((len(places), *one.shape), np.float32)
            array[place] = measured(one, file.stored, *frame.scale.line(file.path, scan.modality))
    assert array is not None
    if padded:
        fill_padding(opened.paths[stack.frames[0].file], array)
    return array


def _frame_geometry(path: Path, frame: PlacedFrame) -> FrameGeometry:
    if frame.position is None or frame.orientation is None or frame.spacing is None:
        raise MedvarError(
            f"{path}: ImagePositionPatient, ImageOrientationPatient or PixelSpacing is missing: "
            "slices cannot be placed."
        )
    return FrameGeometry(frame.position, frame.orientation, frame.spacing)


def _load_cine(scan: DicomScan, opened: _Opened, stack: FrameStack, uid: str) -> Volume:
    """Load a classic multi-frame file, which has no positions: frames stay 2-D, in the stored orientation."""
    file = opened.file(0)
    line = stack.frames[0].scale.line(file.path, scan.modality)
    frames = np.stack([measured(one, file.stored, *line) for one in file.frames(range(file.stored.frames))])
    fill_padding(file.path, frames)
    row_mm, column_mm = (stack.frames[0].spacing or (float("nan"),) * 2)[:2]
    # Axial slices are shown rotated by 180° from RAS, so frames are rotated to be shown as stored.
    array = np.ascontiguousarray(frames[:, ::-1, ::-1].T)
    check_finite(array, file.path)
    affine = np.diag([column_mm, row_mm, 1.0, 1.0])
    spacing = (column_mm, row_mm, float("nan"))
    return Volume(array, affine, spacing, scan.modality, scan.patient, uid, file.path, phase=None, oriented=False)
