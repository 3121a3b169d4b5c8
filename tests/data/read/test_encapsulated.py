"""Packed pixels that keep the letter of the standard, and those that do not but that other readers take."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from reading import only_volume

from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError

RNG = np.random.default_rng(5)
IMAGE = np.clip(np.add.outer(np.arange(40) * 40, np.arange(36) * 60) + RNG.integers(0, 90, (40, 36)), 0, 4095)
IMAGE[0, 0] = 4095
EIGHT = (IMAGE // 16).astype(np.uint8)
IN_EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
IN_SIXTEEN = {"BitsStored": 16, "HighBit": 15}


def shown(volume: Volume) -> np.ndarray:
    """Slices (Z, rows, columns) as they were stored axially."""
    return volume.array[::-1, ::-1].T


def streams_of(dicom_image: Any, pixels: np.ndarray, syntax: str, bits: int = 12) -> list[bytes]:
    """The code stream of each frame, of ``bits`` a sample, and signed where the pixels are."""
    signed = pixels.dtype.kind == "i"
    one = dicom_image("MR", pixels, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed))
    if pixels.ndim == 3:
        one.NumberOfFrames = len(pixels)
    one.compress(syntax, pixels, generate_instance_uid=False)
    return list(generate_frames(one.PixelData, number_of_frames=len(pixels) if pixels.ndim == 3 else 1))


def baseline(image: np.ndarray = EIGHT, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=98, **options)
    return file.getvalue()


def save(folder: Path, dicom_image: Any, syntax: str, stream: bytes, **tags: Any) -> Path:
    """Three axial slices, each of the code stream, with what their header says of it."""
    folder.mkdir(exist_ok=True)
    for number in range(3):
        one = dicom_image("MR", IMAGE)
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.file_meta.TransferSyntaxUID = [1, 1], syntax
        one.PixelData = encapsulate([stream])
        one["PixelData"].VR = "OB"
        for name, value in tags.items():
            setattr(one, name, value)
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    ("syntax", "change", "tags"),
    [
        (JPEGBaseline8Bit, lambda stream: stream, {}),
        (JPEGBaseline8Bit, lambda stream: stream, {**IN_EIGHT, "BitsAllocated": 16}),
        (JPEGBaseline8Bit, lambda stream: stream, IN_SIXTEEN),
        (JPEGExtended12Bit, lambda stream: stream, IN_EIGHT),
        (JPEGLosslessSV1, lambda stream: stream, IN_EIGHT),
        (JPEG2000Lossless, lambda stream: stream, IN_EIGHT),
        (JPEGBaseline8Bit, lambda stream: stream[:-2], IN_EIGHT),
        (JPEGBaseline8Bit, lambda stream: stream[:-2] + b"\0", IN_EIGHT),
        (JPEGBaseline8Bit, lambda stream: stream + bytes(9), IN_EIGHT),
        (JPEGBaseline8Bit, lambda stream: stream[:2] + b"\xff\xff" + stream[2:], IN_EIGHT),
        (JPEGBaseline8Bit, lambda stream: baseline(progressive=True), IN_EIGHT),
    ],
)
def test_lossy_jpeg_with_deviations_from_the_standard(
    tmp_path: Path, dicom_image: Any, syntax: str, change: Callable[[bytes], bytes], tags: dict[str, Any]
) -> None:
    """Breaks for files that GDCM and DCMTK read: bits or syntax that the header has wrong, ends missing or padded."""
    save(tmp_path, dicom_image, syntax, change(baseline()), **tags)
    np.testing.assert_allclose(shown(only_volume(tmp_path))[1], EIGHT, atol=6)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (12, {}),
        (16, {}),
        (12, IN_SIXTEEN),
        (12, {**IN_SIXTEEN, "PixelRepresentation": 1}),  # the code stream has no sign, and 12 of 16 bits are positive
        (12, IN_EIGHT),  # more bits than the header has room for
        (12, {"HighBit": 15}),  # left-aligned words whose code stream was shifted down before
    ],
)
def test_bits_of_the_code_stream(
    tmp_path: Path, dicom_image: Any, syntax: str, bits: int, said: dict[str, Any]
) -> None:
    """Breaks for archives that packed the pixels and left the header, or the other way round."""
    (stream,) = streams_of(dicom_image, IMAGE.astype(np.uint16), syntax, bits)
    save(tmp_path, dicom_image, syntax, stream, **said)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[1], IMAGE)


@pytest.mark.parametrize("said", [{"PixelRepresentation": 1}, {**IN_SIXTEEN, "PixelRepresentation": 1}])
def test_signed_jpeg_2000(tmp_path: Path, dicom_image: Any, said: dict[str, Any]) -> None:
    """Breaks for CT of signed words in JPEG 2000, which says of itself that it has a sign."""
    (stream,) = streams_of(dicom_image, (IMAGE - 2048).astype(np.int16), JPEG2000Lossless)
    save(tmp_path, dicom_image, JPEG2000Lossless, stream, **said)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[1], IMAGE - 2048)


@pytest.mark.parametrize(("kind", "said"), [(JPEGLSLossless, JPEGBaseline8Bit), (JPEG2000Lossless, HTJ2KLossless)])
def test_another_syntax_than_the_header_says(tmp_path: Path, dicom_image: Any, kind: str, said: str) -> None:
    """Breaks for files that a gateway repacked without telling: the code stream knows what it is."""
    (stream,) = streams_of(dicom_image, IMAGE.astype(np.uint16), kind)
    save(tmp_path, dicom_image, said, stream)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[1], IMAGE)


def test_jpeg_2000_in_boxes(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for files that keep the boxes of JP2 before the code stream, which the standard forbids."""
    (stream,) = streams_of(dicom_image, IMAGE.astype(np.uint16), JPEG2000Lossless)
    size = (40).to_bytes(4, "big") + (36).to_bytes(4, "big")
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 \0\0\0\x2djp2h\0\0\0\x16ihdr" + size
    boxes += b"\0\1\x0b\7\0\0\0\0\0\x0fcolr\1\0\0\0\0\0\x11" + (len(stream) + 8).to_bytes(4, "big") + b"jp2c"
    save(tmp_path, dicom_image, JPEG2000Lossless, boxes + stream)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[1], IMAGE)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (baseline(np.stack([EIGHT] * 3, axis=-1)), "3 samples a pixel"),
        (baseline(EIGHT[:20]), "20 × 36 pixels"),
        (b"GIF89a" + bytes(100), "neither JPEG, JPEG-LS nor JPEG 2000"),
        (baseline()[:30], "JPEG without a frame"),
    ],
)
def test_mismatched_code_streams_are_refused(tmp_path: Path, dicom_image: Any, stream: bytes, reason: str) -> None:
    """Breaks for colour under a header that says grey, and for damage: GDCM gives stripes of such files."""
    save(tmp_path, dicom_image, JPEGBaseline8Bit, stream, **IN_EIGHT)
    (one,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match=reason):
        list(one.load())


# Fragments


def in_pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content


def encapsulated(frames: list[list[bytes]], table: str) -> bytes:
    """Fragments of frames, with a table of offsets that is ``right``, ``wrong``, of one entry only, or empty."""
    starts, at = [], 0
    for fragments in frames:
        starts.append(at)
        at += sum(8 + len(one) for one in fragments)
    tables = {"right": starts, "wrong": [start + 6 for start in starts], "one entry": starts[:1], "empty": []}
    offsets = b"".join(start.to_bytes(4, "little") for start in tables[table])
    content = b"".join(item(one) for fragments in frames for one in fragments)
    return item(offsets) + content + b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize("table", ["right", "wrong", "one entry", "empty"])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("size", [200, 10**6])
def test_frames_of_several_fragments(
    tmp_path: Path, dicom_image: Any, multiframe: Any, phantom: Any, syntax: str, table: str, size: int
) -> None:
    """Breaks for enhanced files packed in pieces: which piece belongs to which frame must be found, table or not."""
    path = multiframe(tmp_path / "scan.dcm", phantom)
    one = pydicom.dcmread(path)
    frames = [in_pieces(frame, size) for frame in streams_of(dicom_image, one.pixel_array, syntax)]
    one.file_meta.TransferSyntaxUID = syntax
    one.PixelData = encapsulated(frames, table)
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    one.save_as(path)
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_one_frame_in_many_fragments(tmp_path: Path, dicom_image: Any, syntax: str) -> None:
    """Breaks for large images packed in pieces, the last of them empty."""
    (stream,) = streams_of(dicom_image, IMAGE.astype(np.uint16), syntax)
    save(tmp_path, dicom_image, syntax, stream)
    for path in tmp_path.iterdir():
        one = pydicom.dcmread(path)
        one.PixelData = encapsulated([[*in_pieces(stream, 128), b""]], "empty")
        one.save_as(path)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[0], IMAGE)


def test_packed_pixels_of_a_stated_length(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for writers that state the length of packed pixels, which the standard leaves to an end mark."""
    (stream,) = streams_of(dicom_image, IMAGE.astype(np.uint16), JPEGLSLossless)
    save(tmp_path, dicom_image, JPEGLSLossless, stream)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        at = content.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff")
        value = content[at + 12 : -8]
        path.write_bytes(content[: at + 8] + len(value).to_bytes(4, "little") + value)
    np.testing.assert_array_equal(shown(only_volume(tmp_path))[0], IMAGE)


@pytest.mark.parametrize("lost", [5, 9, 40])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGBaseline8Bit])
def test_a_truncated_end_is_noticed(tmp_path: Path, dicom_image: Any, syntax: str, lost: int) -> None:
    """Breaks for broken downloads: decoders of JPEG take a cut code stream without a word, and fill up with grey."""
    lossy = syntax == JPEGBaseline8Bit
    stream = baseline() if lossy else streams_of(dicom_image, IMAGE.astype(np.uint16), syntax)[0]
    save(tmp_path, dicom_image, syntax, stream, **(IN_EIGHT if lossy else {}))
    path = tmp_path / "1.dcm"
    path.write_bytes(path.read_bytes()[:-lost])
    (one,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match=r"1\.dcm.*truncated"):
        list(one.load())


def test_fragments_that_do_not_form_frames_are_refused(
    tmp_path: Path, dicom_image: Any, multiframe: Any, phantom: Any
) -> None:
    """Breaks for files that lost frames: which is missing nobody knows."""
    path = multiframe(tmp_path / "scan.dcm", phantom)
    one = pydicom.dcmread(path)
    streams = streams_of(dicom_image, one.pixel_array, JPEGLSLossless)
    one.file_meta.TransferSyntaxUID = JPEGLSLossless
    one.PixelData = encapsulated([[stream] for stream in streams[:-1]], "right")
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    one.save_as(path)
    (found,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match="47 fragments do not make 48 frames"):
        list(found.load())


# Files


def test_a_file_without_meta_information(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for old exports that begin with the data set: the syntax is that in which the header is found to be."""
    for path in series(tmp_path, phantom):
        one = pydicom.dcmread(path)
        pydicom.dcmwrite(path, pydicom.Dataset(one), implicit_vr=True, little_endian=True, enforce_file_format=False)
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom)


def test_headers_are_read_once(tmp_path: Path, phantom: Any, series: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for thousands of files: parsing each header again took as long as reading its pixels."""
    series(tmp_path, phantom)
    (one,), _ = find_series(tmp_path)

    def again(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a header was read again")

    monkeypatch.setattr(pydicom, "dcmread", again)
    monkeypatch.setattr("medvar_engine.data.read.dicom_file.read_partial", again)
    (volume,) = one.load()
    np.testing.assert_array_equal(volume.array, phantom)
