"""The values of DICOM pixels: stored bits alone, padding apart, scales on all slices or on none, CT in HU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless
from reading import only_volume

from medvar_engine.data.harmonise.harmonise import harmonise
from medvar_engine.data.harmonise.hounsfield import check_hu
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError


def packed(folder: Path, syntax: str | None, bits: int = 12, high: int = 11) -> None:
    """Pack words of 16 bits, of which ``bits`` below and with ``high`` are then said to be stored."""
    for path in folder.rglob("*.dcm"):
        one = pydicom.dcmread(path)
        one.BitsStored, one.HighBit = 16, 15
        if syntax is not None:
            one.compress(syntax, generate_instance_uid=False)
        one.BitsStored, one.HighBit = bits, high
        one.save_as(path)


SYNTAXES = [None, RLELossless, JPEG2000Lossless]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_unused_bits_are_ignored(tmp_path: Path, phantom: Any, series: Any, syntax: str | None) -> None:
    """Breaks for scans with an overlay in their high bits: white stripes in the head."""

    def change(number: int, one: Any) -> None:
        words = np.frombuffer(one.PixelData, "<u2").copy()
        words[::7] |= 0x8000
        one.PixelData = words.tobytes()

    series(tmp_path, phantom, change=change)
    packed(tmp_path, syntax)
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
def test_left_aligned_words(tmp_path: Path, phantom: Any, series: Any, syntax: str | None, signed: bool) -> None:
    """Breaks for old scanners that store 12 bits at the upper end of a word: values sixteen times too large."""
    shift = 800 if signed else 0

    def change(number: int, one: Any) -> None:
        words = np.frombuffer(one.PixelData, "<u2").astype(np.int32) - shift
        one.PixelRepresentation = int(signed)
        one.PixelData = (words << 4).astype("<i2" if signed else "<u2").tobytes()

    series(tmp_path, phantom, change=change)
    packed(tmp_path, syntax, high=15)
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom.astype(int) - shift)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_padding_is_background(tmp_path: Path, phantom: Any, series: Any, modality: str) -> None:
    """Breaks for scans with a round field of view: padding would set the window, or refuse the scan as blank."""
    array = phantom.copy()
    array[:5, :5] = 4000

    def change(number: int, one: Any) -> None:
        one.PixelPaddingValue = 4000
        if modality == "CT":
            one.RescaleSlope, one.RescaleIntercept = 1, -1024

    series(tmp_path, array, modality=modality, change=change)
    volume = only_volume(tmp_path)
    inside = np.ones(array.shape, bool)
    inside[:5, :5] = False
    expected = phantom - (1024.0 if modality == "CT" else 0.0)
    np.testing.assert_array_equal(volume.array[inside], expected[inside])
    assert set(volume.array[~inside].tolist()) == {expected[inside].min()}
    if modality == "MR":
        values = harmonise(volume, "MR", "brain", Recipe()).values
        assert values.high <= phantom.max()


def test_a_range_of_padding_and_signed_padding(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for CT that says a signed padding value as an unsigned word, and a range of them."""
    array = phantom.astype(np.int16) - 1000
    array[:3, :3], array[:3, 3:5] = -2000, -1990

    def change(number: int, one: Any) -> None:
        words = np.frombuffer(one.PixelData, "<u2")
        one.PixelData, one.PixelRepresentation, one.BitsStored, one.HighBit = words.tobytes(), 1, 16, 15
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.add_new("PixelPaddingValue", "US", 65536 - 2000)
        one.add_new("PixelPaddingRangeLimit", "US", 65536 - 1990)

    series(tmp_path, array.astype(np.uint16), modality="CT", change=change)
    assert only_volume(tmp_path).array.min() == (phantom[3:].min() - 1000)


def test_nothing_but_padding_is_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for empty images: there is no value that could fill them."""
    series(tmp_path, np.full_like(phantom, 7), PixelPaddingValue=7)
    with pytest.raises(MedvarError, match="no image"):
        only_volume(tmp_path)


def test_slope_on_some_slices_is_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for series with slices that are darker than their neighbours: nobody can say by how much."""

    def change(number: int, one: Any) -> None:
        if number not in (3, 7):
            one.RescaleSlope, one.RescaleIntercept = 2.5, 0

    series(tmp_path, phantom, change=change)
    with pytest.raises(MedvarError, match="2 of 42 slices have no RescaleSlope"):
        only_volume(tmp_path)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_intercept_on_some_slices_is_refused(tmp_path: Path, phantom: Any, series: Any, modality: str) -> None:
    """Breaks the same way for an intercept, and the reason must not blame the slope."""

    def change(number: int, one: Any) -> None:
        one.RescaleSlope = 1
        if number != 5:
            one.RescaleIntercept = -1024

    series(tmp_path, phantom, modality=modality, change=change)
    with pytest.raises(MedvarError, match="1 of 42 slices have no RescaleIntercept"):
        only_volume(tmp_path)


def hu(array: np.ndarray) -> Volume:
    return Volume(array.astype(np.float32), np.eye(4), (1.0, 1.0, 1.0), "CT", None, "s", Path("x"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a / 6, "nothing is below 0"),
        (lambda a: a / 6 - 128, "8 bits"),
        (lambda a: np.where(a < 300, 64536, a.astype(int)), "64536"),
        (lambda a: a + 500, "subtract 1024"),
        (lambda a: np.where(a < 200, a % 40 - 20, a % 100 + 1000), "subtract 1024"),
        (lambda a: np.where(a < 400, -2000, a % 300 + 900), "subtract 1024"),
        (lambda a: np.where(a < 600, a % 40 - 2040, a % 100 - 1024), "subtracted twice"),
        (lambda a: np.where(a < 600, a % 40 - 2000, a % 100), "multiplied"),
    ],
)
def test_values_that_cannot_be_hu_are_refused(phantom: Any, change: Any, reason: str) -> None:
    """Breaks for CT of 8 bits, wrapped, never or twice rescaled: white or black images under the name of HU."""
    with pytest.raises(MedvarError, match=reason):
        check_hu(hu(change(phantom)))


def test_clipped_hu_are_accepted_with_a_stated_window(phantom: Any) -> None:
    """Breaks for skull-stripped CT, of which the user knows that it is HU cut to the brain window."""
    check_hu(hu(phantom / 20), window_stated=True)
    check_hu(hu(phantom - 1000))


@pytest.mark.parametrize("air", [-1024, -2000, -3024, -500, -200])
def test_padding_and_clipped_air_say_nothing(phantom: Any, air: int) -> None:
    """Breaks for CT with a round field of view, and for HU that were clipped to a window: their tissue is right."""
    head = np.where(phantom < 600, phantom % 80 - 1040, phantom % 300 - 150)
    check_hu(hu(np.maximum(head, air)))
    head[:12] = air
    check_hu(hu(head))


def test_a_head_without_air_passes(phantom: Any) -> None:
    """Breaks for CT cut tightly about a skull: bone near 1000 HU is no tissue that was shifted."""
    check_hu(hu(np.where(phantom > 800, phantom + 300, phantom % 120 - 60)))
