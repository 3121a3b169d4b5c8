"""DICOM as it is stored: every transfer syntax and number of bits gives the same voxels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from reading import only_volume

from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError

RNG = np.random.default_rng(5)
IMAGE = np.clip(np.add.outer(np.arange(40) * 20, np.arange(36) * 30) + RNG.integers(0, 90, (40, 36)), 0, 4095)


def shown(volume: Volume) -> np.ndarray:
    """Slices (Z, rows, columns) as they were stored axially."""
    return volume.array[::-1, ::-1].T


def save(folder: Path, make: Callable[[int], FileDataset], **tags: Any) -> None:
    """Three axial slices."""
    folder.mkdir(exist_ok=True)
    for number in range(3):
        dataset = make(number)
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [1, 1]
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


@pytest.mark.parametrize(
    ("syntax", "within", "signed"),
    [
        (syntax, 0, signed)
        for signed in (False, True)
        for syntax in (
            ImplicitVRLittleEndian,
            ExplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
            RLELossless,
            JPEGLSLossless,
            JPEG2000Lossless,
        )
    ]
    + [(JPEGLSNearLossless, 3, False), (JPEG2000, 60, False)],
)
def test_transfer_syntaxes(tmp_path: Path, dicom_image: Any, syntax: Any, within: int, signed: bool) -> None:
    """Breaks for a whole scanner or archive: each stores in the syntax it likes, CT signed or not."""

    def make(number: int) -> FileDataset:
        pixels = IMAGE + number - (1024 if signed else 0)
        dataset = dicom_image("MR", IMAGE.astype(np.uint16))
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = int(signed), 13, 12
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        stored = pixels.astype(f"{order}i2" if signed else f"{order}u2")
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
        if syntax.is_encapsulated:
            options = {JPEGLSNearLossless: {"jls_error": within}, JPEG2000: {"j2k_cr": [2]}}.get(syntax, {})
            dataset.compress(
                syntax, stored.astype(stored.dtype.newbyteorder("=")), generate_instance_uid=False, **options
            )
        elif syntax in (ExplicitVRBigEndian, ImplicitVRLittleEndian):
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset = as_written(dataset, syntax)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        return dataset

    save(tmp_path, make)
    expected = np.stack([IMAGE + number - (1024 if signed else 0) for number in range(3)])
    np.testing.assert_allclose(shown(only_volume(tmp_path)), expected, atol=within)


def as_written(dataset: FileDataset, syntax: Any) -> FileDataset:
    """The data set as of another byte order or with implicit VR."""
    fresh = FileDataset(
        "",
        dict(dataset.items()),
        preamble=b"\0" * 128,
        file_meta=dataset.file_meta,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
    )
    fresh.file_meta.TransferSyntaxUID = syntax
    return fresh


def test_jpeg_baseline(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for old exports in 8 bits with loss: near the original is all that can be asked."""
    image = (IMAGE // 16).astype(np.uint8)

    def make(number: int) -> FileDataset:
        dataset = dicom_image("MR", image)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=98)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([file.getvalue()])
        dataset["PixelData"].VR = "OB"
        return dataset

    save(tmp_path, make)
    np.testing.assert_allclose(shown(only_volume(tmp_path))[1], image, atol=6)


def test_jpeg_lossless(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for most compressed CT archives, which use this syntax; encoded with GDCM where that is installed."""
    import gdcm

    def make(number: int) -> FileDataset:
        dataset = dicom_image("MR", (IMAGE + number).astype(np.uint16))
        raw, packed = tmp_path / "raw", tmp_path / "packed"
        dataset.save_as(raw, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(raw))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        result = pydicom.dcmread(packed)
        assert result.file_meta.TransferSyntaxUID == JPEGLosslessSV1
        raw.unlink()
        packed.unlink()
        return result

    save(tmp_path, make)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[2], IMAGE + 2)


# A ramp of 16 × 12 pixels, encoded with OpenJPH: no encoder for this syntax is at hand here.
HTJ2K_RAMP = base64.b85decode(
    "|4;u>04YEK0000C0000G00000000000000C0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&"
    "kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000egFaglfVEbk@p1$bN~Rr024p}5`YN$0|#^fA_9kW0Kfnf"
    "KmZef)9C<<bO4S!{s4ni0KfnhPyhu;qKXnF>X+gRbpXJDfxsBRjJ5#404)dr1$ZhdDk>@}Dk|OzdU|n!cmT#mqtR&m`~VR4Apz{U"
    "0RPz"
)


def test_high_throughput_jpeg_2000(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for new archives, whose files are small and quick to decode."""
    ramp = (np.add.outer(np.arange(16) * 100, np.arange(12) * 150) % 4096).astype(np.uint16)

    def make(number: int) -> FileDataset:
        dataset = dicom_image("MR", ramp, BitsStored=16, HighBit=15)
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        dataset.PixelData = encapsulate([HTJ2K_RAMP])
        dataset["PixelData"].VR = "OB"
        return dataset

    save(tmp_path, make)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[0], ramp)


# 24 × 16 pixels of 12 bits, encoded with DCMTK, which took 200 off.
EXTENDED_RAMP = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQIBAQEBAQIBAQECAgICAgICAgIDAwQDAwMDAwICAwQDAwQE"
    "BAQEAgMFBQQEBQQEBAT/wQALDAAQABgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAADQsO/8QAHBAAAAYDAAAAAAAAAAAAAAAAAAsM"
    "KDhHVWNz/9oACAEBAAA/AMpjlgad0jyxrF13y0hGALA07pHljWLrvlpCMAWBp3SPLGsXXfLSJf5YGndI8saxdd8tIRgCwNO6R5Y1"
    "i675aQjAFgad0jyxrF13y0j/2Q=="
)


def test_jpeg_extended(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for archives that keep 12 bits with loss: of the decoders at hand one alone can do it."""
    ramp = np.add.outer(200 + np.arange(16) * 120, np.arange(24) * 70)

    def make(number: int) -> FileDataset:
        dataset = dicom_image("MR", ramp.astype(np.uint16), BitsStored=12, HighBit=11)
        dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
        dataset.PixelData = encapsulate([EXTENDED_RAMP])
        dataset["PixelData"].VR = "OB"
        return dataset

    save(tmp_path, make, RescaleSlope=1, RescaleIntercept=200)
    np.testing.assert_allclose(shown(only_volume(tmp_path))[1], ramp, atol=4)


def test_overlay_bits_are_not_pixels(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for old files that keep an overlay in the high bits: 12 of 16 are stored, the rest may be anything."""
    save(tmp_path, lambda number: dicom_image("MR", IMAGE.astype(np.uint16) | np.uint16(0x8000)))
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[0], IMAGE)


def test_twelve_signed_bits(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for CT of 12 signed bits, not extended to 16: what is below 0 would be far above."""
    values = IMAGE - 2048
    save(
        tmp_path,
        lambda number: dicom_image("CT", (values & 0x0FFF).astype(np.uint16)),
        PixelRepresentation=1,
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[0], values)


def test_code_stream_larger_than_the_header_is_refused(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for a server that reads strangers' files: decoders take memory for what the code stream claims."""

    def make(number: int) -> FileDataset:
        dataset = dicom_image("MR", IMAGE.astype(np.uint16))
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        packed = bytearray(dataset.PixelData)
        at = packed.index(b"\xff\x4f\xff\x51")
        packed[at + 8 : at + 16] = (60000).to_bytes(4, "big") * 2
        dataset.PixelData = bytes(packed)
        return dataset

    save(tmp_path, make)
    (one,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match="60000 × 60000"):
        list(one.load())


def test_extended_offset_table(tmp_path: Path, dicom_image: Any, multiframe: Any, phantom: Any) -> None:
    """Breaks for large multi-frame files, whose frames are found by the extended offset table."""
    path = multiframe(tmp_path / "scan.dcm", phantom)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, encapsulate_ext=True, generate_instance_uid=False)
    assert "ExtendedOffsetTable" in dataset
    dataset.save_as(path)
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom)
