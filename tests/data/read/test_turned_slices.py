"""Slices of one series whose rows or columns run in other directions, and stacks that lie beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.data.read.dicom_geometry import FrameGeometry
from medvar_engine.data.read.dicom_turn import turned_to
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume

SQUARE = 44  # rows and columns of slices that may be transposed
# (orientation, transposed, rows reversed, columns reversed) of an axial slice.
UPRIGHT = ([1, 0, 0, 0, 1, 0], False, False, False)
UPSIDE_DOWN = ([-1, 0, 0, 0, -1, 0], False, True, True)
FROM_BEHIND = ([-1, 0, 0, 0, 1, 0], False, False, True)
FROM_BELOW = ([1, 0, 0, 0, -1, 0], False, True, False)
LYING = ([0, 1, 0, 1, 0, 0], True, False, False)
LYING_ON_THE_HEAD = ([0, -1, 0, 1, 0, 0], True, True, False)

Stored = tuple[list[int], bool, bool, bool]


def store(one: Any, stored: Stored) -> None:
    """Store an upright slice with its rows and columns in another direction, at the same place in the patient."""
    orientation, transposed, rows, columns = stored
    frame = np.frombuffer(one.PixelData, np.uint16).reshape(one.Rows, one.Columns)
    corner = np.asarray([float(number) for number in one.ImagePositionPatient])
    row_mm, column_mm = (float(number) for number in one.PixelSpacing)
    corner += [column_mm * (one.Columns - 1) * columns, row_mm * (one.Rows - 1) * rows, 0]
    frame = frame[:: -1 if rows else 1, :: -1 if columns else 1]
    one.PixelData = np.ascontiguousarray(frame.T if transposed else frame).tobytes()
    one.ImagePositionPatient, one.ImageOrientationPatient = corner.tolist(), orientation


def volumes_of(folder: Path) -> tuple[list[Volume], list[str]]:
    found, refusals = find_series(folder)
    assert not refusals
    remarks = [remark for one in found for remark in one.remarks(phase_step=1)]
    return [volume for one in found for volume in one.load(phase_step=1)], remarks


@pytest.mark.parametrize(
    "turns",
    [
        [UPRIGHT, UPSIDE_DOWN],
        [FROM_BEHIND, UPRIGHT],
        [UPRIGHT, FROM_BELOW],
        [UPRIGHT, LYING],
        [LYING_ON_THE_HEAD, UPRIGHT, UPRIGHT],
        [UPRIGHT, UPSIDE_DOWN, FROM_BEHIND, FROM_BELOW, LYING],
    ],
)
def test_slices_in_turned_directions_are_one_volume(tmp_path: Path, phantom: Any, series: Any, turns: Any) -> None:
    """Breaks for series of which every other slice is upside down: two scans, twice as thick as they are."""
    array = phantom[:SQUARE, :SQUARE]

    def square(number: int, one: Any) -> None:
        one.PixelSpacing = [1.5, 1.5]

    series(tmp_path / "upright", array, change=square)

    def turned(number: int, one: Any) -> None:
        square(number, one)
        store(one, turns[number % len(turns)])

    series(tmp_path / "turned", array, change=turned)
    ((volume,), _), ((upright,), _) = volumes_of(tmp_path / "turned"), volumes_of(tmp_path / "upright")
    np.testing.assert_array_equal(volume.array, upright.array)
    np.testing.assert_allclose(volume.affine, upright.affine, atol=1e-6)


def test_turned_slices_keep_their_scale_and_their_time(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks where a slice is turned, and not what its header says of it."""
    for time in range(3):

        def change(number: int, one: Any, time: int = time) -> None:
            one.TemporalPositionIdentifier, one.RescaleIntercept, one.RescaleSlope = time + 1, number, 1 + number % 2
            if number % 2:
                store(one, UPSIDE_DOWN)

        series(tmp_path / str(time), phantom + time, change=change)
    volumes, _ = volumes_of(tmp_path)
    scale, number = 1 + np.arange(phantom.shape[2]) % 2, np.arange(phantom.shape[2])
    assert len(volumes) == 3
    for time, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.array, (phantom + time) * scale + number)


def test_halves_in_turned_directions_are_one_volume(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for a scan of two packages, of which one is stored upside down: no place is there twice."""
    series(tmp_path, phantom, change=lambda number, one: store(one, UPSIDE_DOWN if number > 20 else UPRIGHT))
    (volume,), _ = volumes_of(tmp_path)
    np.testing.assert_array_equal(volume.array, phantom)


def test_a_whole_stack_in_turned_directions_is_a_scan_of_its_own(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for a second reconstruction that is stored upside down: it repeats all places."""
    series(tmp_path / "upright", phantom)
    series(tmp_path / "turned", phantom + 1, change=lambda number, one: store(one, UPSIDE_DOWN))
    volumes, _ = volumes_of(tmp_path)
    assert len({one.series for one in volumes}) == 2
    for volume in volumes:
        np.testing.assert_array_equal(
            volume.array - phantom, np.full(phantom.shape, volume.array[0, 0, 0] - phantom[0, 0, 0])
        )


def test_what_cannot_be_turned() -> None:
    """Breaks for oblique frames and for those whose pixels would change their shape."""
    frame = FrameGeometry((0, 0, 0), (1, 0, 0, 0, 1, 0), (1.5, 1.5))
    wide = FrameGeometry((0, 0, 0), (1, 0, 0, 0, 1, 0), (1.5, 1.25))
    assert turned_to(frame, (8, 8), (0.8, 0.6, 0, -0.6, 0.8, 0)) is None
    assert turned_to(frame, (8, 8), (1, 0, 0, 0, 0, -1)) is None
    assert turned_to(frame, (8, 9), (0, 1, 0, 1, 0, 0)) is None
    assert turned_to(wide, (8, 8), (0, 1, 0, 1, 0, 0)) is None
    assert turned_to(wide, (8, 9), (-1, 0, 0, 0, 1, 0)) is not None


# Stacks beside each other


@pytest.mark.parametrize("apart", [20.0, 300.0])
def test_stations_at_the_same_depths_are_scans(tmp_path: Path, phantom: Any, series: Any, apart: float) -> None:
    """Breaks for coronal scans of the whole body: stations would pass for time points, and most would be left out."""
    for station in range(3):

        def change(number: int, one: Any, station: int = station) -> None:
            x, y, z = (float(value) for value in one.ImagePositionPatient)
            one.ImagePositionPatient, one.InstanceNumber = [x, y, z - apart * station], 44 * station + number + 1

        series(tmp_path / str(station), phantom + station, "coronal", change=change)
    volumes, remarks = volumes_of(tmp_path)
    assert len({one.series for one in volumes}) == len(volumes) == 3
    assert all("position in the plane" in one for one in remarks)
    heights = [float(one.affine[2, 3]) for one in sorted(volumes, key=lambda one: float(one.array.mean()))]
    np.testing.assert_allclose(np.diff(heights), [-apart, -apart])


def test_time_points_of_a_moving_patient_are_one_scan(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for scanners that follow the motion: their time points lie some tenths of a millimetre apart."""
    for time in range(4):

        def change(number: int, one: Any, time: int = time) -> None:
            x, y, z = (float(value) for value in one.ImagePositionPatient)
            one.ImagePositionPatient, one.TemporalPositionIdentifier = [x + 0.2 * time, y, z], time + 1

        series(tmp_path / str(time), phantom + time, change=change)
    volumes, _ = volumes_of(tmp_path)
    assert [one.phase for one in volumes] == [f"phase {time + 1} of 4" for time in range(4)]
