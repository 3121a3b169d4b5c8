"""Bombs in DICOM."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from bomb_readers import MIB, PACKED, bomb, image, scan
from bombs_of_pictures import jpeg
from bombs_of_scans import zeros
from fuzz_readers import enhanced, one_frame
from pydicom.encaps import encapsulate


def saved(dataset: Any, path: Path, implicit: bool = False) -> Path:
    """Save a data set."""
    if implicit:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    dataset.save_as(path, enforce_file_format=True)
    return path


def deflated(folder: Path, tail: bytes, count: int) -> Path:
    """A deflated file that begins with a small image, and goes on with ``count`` times ``tail``."""
    dataset = one_frame(np.zeros((8, 8)))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    content = saved(dataset, folder / "a.dcm").read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(1, wbits=-15)
    packed = packer.compress(zlib.decompress(content[start:], -15))
    packed += b"".join(packer.compress(tail) for _ in range(count)) + packer.flush()
    (folder / "a.dcm").write_bytes(content[:start] + packed)
    return folder / "a.dcm"


COMMENT = b"\xf0\x7f\x10\x10OB\0\0\0\0\x10\0" + bytes(MIB)


@bomb(scan, honest=PACKED)
def dicom_deflated_zeros(folder: Path) -> Path:
    """DICOM deflated zeros."""
    return deflated(folder, COMMENT, 900)


@bomb(image, honest=64 * MIB)
def dicom_image_deflated_zeros(folder: Path) -> Path:
    """DICOM image deflated zeros."""
    return deflated(folder, COMMENT, 900)


@bomb(scan, honest=PACKED)
def dicom_deflated_many_elements(folder: Path) -> Path:
    """DICOM deflated many elements."""
    return deflated(folder, b"\x10\x00\x10\x20SH\x00\x00" * 10_000, 1000)


@bomb(image, honest=64 * MIB)
def dicom_image_deflated_many_elements(folder: Path) -> Path:
    """DICOM image deflated many elements."""
    return deflated(folder, b"\x10\x00\x10\x20SH\x00\x00" * 10_000, 700)


@bomb(scan, honest=PACKED)
def dicom_packed_by_gzip_zeros(folder: Path) -> Path:
    """DICOM packed by gzip zeros."""
    content = saved(one_frame(np.zeros((8, 8))), folder / "a.dcm").read_bytes()
    (folder / "a.dcm").unlink()
    return zeros(folder / "a.dcm.gz", content, 1000 * MIB)


def nested(folder: Path, elements: bytes) -> Path:
    """Elements in front of all others."""
    content = saved(one_frame(np.zeros((8, 8))), folder / "a.dcm").read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    (folder / "a.dcm").write_bytes(content[:start] + elements + content[start:])
    return folder / "a.dcm"


SEQUENCE = b"\x08\x00\x96\x10SQ\0\0\xff\xff\xff\xff"
ITEM, END_OF_ITEM, END = b"\xfe\xff\0\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"


@bomb(scan)
def dicom_sequences_nested_deeply(folder: Path) -> Path:
    """DICOM sequences nested deeply."""
    return nested(folder, (SEQUENCE + ITEM) * 200_000)


@bomb(scan)
def dicom_sequence_of_many_items(folder: Path) -> Path:
    """DICOM sequence of many items."""
    return nested(folder, SEQUENCE + b"\xfe\xff\0\xe0\0\0\0\0" * 400_000 + END)


@bomb(scan)
def dicom_wanted_sequence_of_many_items(folder: Path) -> Path:
    """DICOM wanted sequence of many items."""
    sequence = b"\x18\x00\x01\xa0SQ\0\0\xff\xff\xff\xff"
    return nested(folder, sequence + b"\xfe\xff\0\xe0\0\0\0\0" * 400_000 + END)


@bomb(image)
def dicom_image_of_many_items(folder: Path) -> Path:
    """DICOM image of many items."""
    return nested(folder, SEQUENCE + b"\xfe\xff\0\xe0\0\0\0\0" * 400_000 + END)


@bomb(scan)
def dicom_of_many_elements(folder: Path) -> Path:
    """DICOM of many elements."""
    return nested(folder, b"\x08\x00\x96\x10SH\x00\x00" * 1_000_000)


@bomb(scan)
def dicom_position_of_many_numbers(folder: Path) -> Path:
    """DICOM position of many numbers."""
    dataset = enhanced(np.zeros((3, 8, 8), np.uint16))
    position = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    position.add_new(0x00200032, "UN", b"0\\" * 4_000_000)
    return saved(dataset, folder / "a.dcm", implicit=True)


@bomb(scan)
def dicom_echo_of_many_numbers(folder: Path) -> Path:
    """DICOM echo of many numbers."""
    dataset = enhanced(np.zeros((3, 8, 8), np.uint16))
    dataset.add_new(0x00180086, "UN", b"0\\" * 4_000_000)
    return saved(dataset, folder / "a.dcm", implicit=True)


@bomb(scan)
def dicom_type_of_many_words(folder: Path) -> Path:
    """DICOM type of many words."""
    dataset = enhanced(np.zeros((3, 8, 8), np.uint16))
    dataset.add_new(0x00080008, "UN", b"A\\" * 4_000_000)
    return saved(dataset, folder / "a.dcm", implicit=True)


@bomb(scan)
def dicom_private_b_value_of_many_numbers(folder: Path) -> Path:
    """DICOM private b value of many numbers."""
    dataset = enhanced(np.zeros((3, 8, 8), np.uint16))
    dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    dataset.add_new(0x0019100C, "UN", b"0\\" * 4_000_000)
    return saved(dataset, folder / "a.dcm")


@bomb(scan)
def dicom_element_of_a_huge_length(folder: Path) -> Path:
    """DICOM element of a huge length."""
    return nested(folder, b"\x08\x00\x96\x10OB\0\0\xf0\xff\xff\xff")


@bomb(scan)
def dicom_claims_frames(folder: Path) -> Path:
    """DICOM claims frames."""
    dataset = enhanced(np.zeros((3, 8, 8), np.uint16))
    dataset.Rows = dataset.Columns = 65_535
    return saved(dataset, folder / "a.dcm")


def encapsulated(folder: Path, syntax: str, frames: list[bytes], rows: int, columns: int) -> Path:
    """A file of compressed frames."""
    dataset = enhanced(np.zeros((len(frames), 8, 8), np.uint16))
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return saved(dataset, folder / "a.dcm")


def rle(size: int) -> bytes:
    """Two segments of ``size`` zeros each."""
    run = b"\x81\x00" * (size // 128)
    return struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13) + run * 2


@bomb(scan)
def dicom_rle_claims_a_huge_frame(folder: Path) -> Path:
    """DICOM RLE claims a huge frame."""
    return encapsulated(folder, "1.2.840.10008.1.2.5", [rle(128)] * 3, 30_000, 30_000)


@bomb(scan, honest=4 * 3 * 2**24)
def dicom_rle_of_zeros(folder: Path) -> Path:
    """DICOM RLE of zeros."""
    return encapsulated(folder, "1.2.840.10008.1.2.5", [rle(2**24)] * 3, 4096, 4096)


@bomb(scan)
def dicom_jpeg_claims_a_huge_frame(folder: Path) -> Path:
    """DICOM JPEG claims a huge frame."""
    return encapsulated(folder, "1.2.840.10008.1.2.4.50", [jpeg(65_500, 65_500)] * 3, 65_500, 65_500)


@bomb(scan)
def dicom_jpeg_claims_many_frames(folder: Path) -> Path:
    """DICOM JPEG claims many frames."""
    return encapsulated(folder, "1.2.840.10008.1.2.4.50", [jpeg(8192, 8192)] * 30, 8192, 8192)


def j2k(rows: int, columns: int) -> bytes:
    """A JPEG 2000 of zeros, of which little comes."""
    small = one_frame(np.zeros((64, 64)))
    small.compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
    found = bytearray(next(pydicom.encaps.generate_frames(small.PixelData, number_of_frames=1)))
    at = found.index(b"\xff\x4f\xff\x51")
    found[at + 8 : at + 16] = struct.pack(">2I", columns, rows)
    found[at + 24 : at + 32] = struct.pack(">2I", columns, rows)
    return bytes(found)


@bomb(scan)
def dicom_jpeg_2000_claims_a_huge_frame(folder: Path) -> Path:
    """DICOM JPEG 2000 claims a huge frame."""
    return encapsulated(folder, "1.2.840.10008.1.2.4.90", [j2k(30_000, 30_000)] * 3, 30_000, 30_000)


@bomb(scan)
def dicom_jpeg_2000_claims_many_frames(folder: Path) -> Path:
    """DICOM JPEG 2000 claims many frames."""
    return encapsulated(folder, "1.2.840.10008.1.2.4.90", [j2k(8192, 8192)] * 30, 8192, 8192)


@bomb(image, honest=64 * MIB)
def dicom_image_of_jpeg_2000_claims(folder: Path) -> Path:
    """DICOM image of JPEG 2000 claims."""
    return encapsulated(folder, "1.2.840.10008.1.2.4.90", [j2k(30_000, 30_000)], 30_000, 30_000)


@bomb(scan)
def dicom_of_many_fragments(folder: Path) -> Path:
    """DICOM of many fragments."""
    dataset = enhanced(np.zeros((3, 8, 8), np.uint16))
    dataset.PixelData = b"\xfe\xff\0\xe0\0\0\0\0" * 2_000_000 + END
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    return saved(dataset, folder / "a.dcm")


@bomb(scan)
def dicom_folder_of_many_files(folder: Path) -> Path:
    """DICOM folder of many files."""
    content = saved(one_frame(np.zeros((8, 8))), folder / "0.dcm").read_bytes()
    for number in range(1, 2000):
        (folder / f"{number}.dcm").write_bytes(content[:-100])
    return folder
