"""Read one DICOM series as volumes: frames of one file or of many, and cine loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from medvar_engine.data.read.dicom_file import floats_of, modality_of
from medvar_engine.data.read.dicom_frame import FrameTags
from medvar_engine.data.read.dicom_geometry import FrameGeometry, stack_affine
from medvar_engine.data.read.dicom_pixels import measured, open_image, rescale, stored_pixels, without_padding
from medvar_engine.data.read.orientation import check_finite, to_ras
from medvar_engine.data.read.volume import MINIMUM_SLICES, Volume
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray


@dataclass(frozen=True, slots=True)
class FrameStack:
    """The frames of one volume, each as index of the file in its series and of the frame in the file; its b-value."""

    frames: tuple[tuple[int, int], ...]
    b_value: float | None = None


def load(
    paths: Sequence[Path],
    uid: str,
    stacks: Sequence[FrameStack],
    phase_step: int,
    diffusion: str = "b0",
    minimum: int = MINIMUM_SLICES,
) -> Iterator[Volume]:
    """Read the pixels of a scan as volumes of at least ``minimum`` slices; the checks on geometry are here.

    Without ``stacks`` the one file is a cine loop. Of several volumes every ``phase_step``-th is read; of a diffusion
    scan those with the lowest b-value, or ``all``.
    """
    try:
        with disable_value_validation():
            if not stacks:
                yield _load_cine(paths[0], open_image(paths[0]), uid)
                return
            opened = _Opened(paths)
            for number in chosen(stacks, phase_step, diffusion):
                yield _load_stack(opened, stacks[number], uid, _name(stacks, number), minimum)
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        # A damaged header shows wherever one of its values is first used.
        raise MedvarError(f"{paths[0]}: a value in its header is missing or malformed ({error!r}).") from error


def is_diffusion(stacks: Sequence[FrameStack]) -> bool:
    """Whether several volumes differ in diffusion weighting."""
    return len({stack.b_value for stack in stacks}) > 1


def chosen(stacks: Sequence[FrameStack], phase_step: int, diffusion: str) -> list[int]:
    """Indices of the volumes that are read."""
    indices = list(range(len(stacks)))
    if not is_diffusion(stacks):
        return indices[::phase_step]
    if diffusion == "all":
        return indices
    lowest = min(stack.b_value or 0.0 for stack in stacks)
    return [index for index in indices if (stacks[index].b_value or 0.0) == lowest][::phase_step]


def _name(stacks: Sequence[FrameStack], number: int) -> str | None:
    if len(stacks) == 1:
        return None
    of = f"{number + 1} of {len(stacks)}"
    return f"b {stacks[number].b_value or 0:g}, volume {of}" if is_diffusion(stacks) else f"phase {of}"


class _Opened:
    """The files of a series; the last one stays open, since the frames of several volumes may lie in it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._last: tuple[int, Dataset] | None = None

    def dataset(self, index: int) -> Dataset:
        if self._last is None or self._last[0] != index:
            self._last = index, open_image(self.paths[index])
        return self._last[1]


def _load_stack(opened: _Opened, stack: FrameStack, uid: str, name: str | None, minimum: int) -> Volume:
    frames: list[FloatArray] = []
    geometry: list[FrameGeometry] = []
    scaled: dict[bool, list[Path]] = {}
    dataset = Dataset()
    for file, members in groupby(stack.frames, key=lambda one: one[0]):
        path, dataset = opened.paths[file], opened.dataset(file)
        indices = [index for _, index in members]
        for index, pixels in zip(indices, stored_pixels(path, dataset, indices), strict=True):
            tags = FrameTags(path, dataset, index)
            geometry.append(_frame_geometry(path, tags))
            frames.append(measured(pixels, dataset, *rescale(path, dataset, tags)))
            scaled.setdefault(tags.get("RescaleSlope") is not None, []).append(path)
    first = opened.paths[stack.frames[0][0]]
    if len(scaled) > 1:
        names = dict.fromkeys(path.name for path in scaled[False])
        raise MedvarError(
            f"{first}: {len(scaled[False])} of {len(frames)} slices have no RescaleSlope and the others have: "
            f"{', '.join(list(names)[:5])}{', …' if len(names) > 5 else ''}. Their values cannot be compared."
        )
    return _volume(frames, geometry, dataset, uid, first, name, minimum)


def _frame_geometry(path: Path, tags: FrameTags) -> FrameGeometry:
    position, orientation, spacing = (
        floats_of(tags.get(name)) for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    if position is None or orientation is None or spacing is None:
        raise MedvarError(
            f"{path}: ImagePositionPatient, ImageOrientationPatient or PixelSpacing is missing: "
            "slices cannot be placed."
        )
    return FrameGeometry(position, orientation, spacing)


def _load_cine(path: Path, dataset: Dataset, uid: str) -> Volume:
    """A classic multi-frame file says nothing of where its frames lie: they stay 2-D, in the orientation stored."""
    slope, intercept = rescale(path, dataset, FrameTags(path, dataset))
    count = int(dataset.NumberOfFrames)
    frames = [measured(pixels, dataset, slope, intercept) for pixels in stored_pixels(path, dataset, range(count))]
    row_mm, column_mm = (floats_of(dataset.get("PixelSpacing")) or (float("nan"),) * 2)[:2]
    # As an axial slice is shown turned by half a circle from RAS, turn the frame so that showing it gives it back.
    whole = without_padding(path, frames)
    array = np.ascontiguousarray(np.stack([frame[::-1, ::-1].T for frame in whole], axis=-1))
    check_finite(array, path)
    affine = np.diag([column_mm, row_mm, 1.0, 1.0])
    spacing = (column_mm, row_mm, float("nan"))
    return Volume(
        array, affine, spacing, modality_of(dataset), _patient_of(dataset), uid, path, phase=None, oriented=False
    )


def _volume(
    frames: Sequence[FloatArray],
    geometry: Sequence[FrameGeometry],
    dataset: Dataset,
    series: str,
    path: Path,
    phase: str | None,
    minimum: int,
) -> Volume:
    order, affine = stack_affine(geometry, path, minimum, frames)
    array, affine, spacing = to_ras(without_padding(path, [frames[i] for i in order]).T, affine, path)
    return Volume(array, affine, spacing, modality_of(dataset), _patient_of(dataset), series, path, phase)


def _patient_of(dataset: Dataset) -> str | None:
    return str(dataset.get("PatientID") or "").strip() or None
