"""Small files that unfold to much: each is refused by what its size can honestly hold, before it takes memory or time.

``benchmarks/bombs.py`` measures memory and time of many more.
"""

from __future__ import annotations

import bz2
import gzip
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medvar_engine.data.masks.segmentation_object import segments_of
from medvar_engine.data.read import dicom_file, header_limits
from medvar_engine.data.read.label_maps import looks_like_labels
from medvar_engine.data.read.read_nifti import read
from medvar_engine.data.read.read_slice import read_grey
from medvar_engine.data.read.scans import find_series
from medvar_engine.errors import MedvarError
from medvar_engine.write.open_slice_file import open_nifti


def reason(source: Path) -> str:
    """Why the only file or series below ``source`` is refused."""
    found, refusals = find_series(source)
    for one in found:
        with pytest.raises(MedvarError) as refused:
            list(one.load())
        return str(refused.value)
    return refusals[0].reason


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ratio counts from small sizes, so that tests need no large ones."""
    monkeypatch.setattr(header_limits, "SMALL_BYTES", 2**16)


def zeros(path: Path, labels: bool = False) -> Path:
    image = nib.Nifti1Image(np.zeros((64, 64, 64), np.int16), np.eye(4))
    if labels:
        image.header.set_intent("label")
    path.write_bytes(gzip.compress(image.to_bytes(), 9))
    return path


@pytest.mark.usefixtures("small")
def test_scans_do_not_unfold_to_hundreds_of_times_their_size(tmp_path: Path) -> None:
    """Breaks for a server: a megabyte becomes a gigabyte. Nearly empty label maps do so, and are read."""
    assert "times" in reason(zeros(tmp_path / "scan.nii.gz"))
    assert read(zeros(tmp_path / "labels.nii.gz", labels=True), labels=True)[0].shape == (64, 64, 64)
    head = "\n".join(["NRRD0004", "type: short", "dimension: 3", "space: LPS", "sizes: 64 64 64", "endian: little"])
    head += "\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
    for name, pack in (("gzip", gzip.compress), ("bzip2", bz2.compress)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.nrrd").write_bytes(f"{head}encoding: {name}\n\n".encode() + pack(bytes(2 * 64**3)))
        assert "times" in reason(folder)


def extended(count: int, size: int = 16) -> bytes:
    """A NIfTI with ``count`` extensions that claim ``size`` bytes."""
    content = nib.Nifti1Image(np.zeros((4, 4, 1), np.int16), np.eye(4)).to_bytes()
    head = bytearray(content[:348])
    struct.pack_into("<f", head, 108, 352 + 16 * count)
    return bytes(head) + b"\1\0\0\0" + (struct.pack("<2i", size, 6) + b"{}      ") * count + content[352:]


@pytest.mark.parametrize(
    ("count", "size", "words"), [(2000, 16, "more than"), (3, 0, "claims 0"), (3, -8, "claims -8")]
)
def test_extensions_of_nifti_are_checked_first(tmp_path: Path, count: int, size: int, words: str) -> None:
    """Breaks for a megabyte of tiny extensions, of which nibabel makes objects, and for sizes that count backwards."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(extended(count, size)))
    assert words in reason(path)
    with pytest.raises(MedvarError, match=words):
        open_nifti(path)
    path.write_bytes(gzip.compress(extended(3)))
    assert len(open_nifti(path).header.extensions) == 3


def test_what_nibabel_finds_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Breaks a terminal: the words of a stranger's header went there as they are."""
    content = bytearray(extended(0))
    content[344:348] = b"\x1b[2J"
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    with caplog.at_level(logging.DEBUG), pytest.raises(MedvarError):
        open_nifti(path)
    assert not caplog.records


def test_counting_values_ends_early() -> None:
    """Breaks for a large volume of two values: all were sorted, which took minutes. Rare values count wherever."""
    blank = np.zeros((300, 200, 100), np.float32)
    assert not looks_like_labels(blank)
    blank[-1, -1, -1] = 1
    assert looks_like_labels(blank)


# DICOM.


def before_the_rest(path: Path, elements: bytes) -> Path:
    """Put elements in front of all others of a data set."""
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    path.write_bytes(content[:start] + elements + content[start:])
    return path


MANY = 60_000
ITEM = b"\xfe\xff\0\xe0\0\0\0\0"


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        (b"\x08\x00\x96\x10SQ\0\0\xff\xff\xff\xff" + ITEM * MANY + b"\xfe\xff\xdd\xe0\0\0\0\0", "elements"),
        # ContributingEquipmentSequence, which is looked into
        (b"\x18\x00\x01\xa0SQ\0\0" + struct.pack("<I", 8 * MANY) + ITEM * MANY, "too many items"),
        (b"\x08\x00\x96\x10SH\x00\x00" * 4 * MANY, "elements"),
    ],
)
def test_elements_are_counted(tmp_path: Path, dicom_image: Any, elements: bytes, words: str) -> None:
    """Breaks for a server: an empty item has 8 bytes in the file, and a thousand in memory."""
    path = tmp_path / "a.dcm"
    dicom_image("MR", np.zeros((32, 32))).save_as(path, enforce_file_format=True)
    assert not find_series(tmp_path)[1]
    assert words in reason(before_the_rest(path, elements))


@pytest.mark.parametrize("tag", [0x00200032, 0x00180086, 0x00080008])
def test_long_values_are_not_converted(tmp_path: Path, dicom_image: Any, tag: int) -> None:
    """Breaks for a server: two bytes of text become an object each. In implicit VR a value has any length."""
    dataset = dicom_image("MR", np.zeros((32, 32)))
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.add_new(tag, "UN", b"1\\" * 50_000)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "100000 bytes" in reason(tmp_path)


@pytest.mark.usefixtures("small")
def test_compressed_frames_claim_what_they_may_hold(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for a server: a frame of a hundred bytes may claim 65,535² pixels, and a series many such frames."""
    run = b"\x81\x00" * 4
    frame = struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13) + run * 2
    for number in range(4):
        dataset = dicom_image("MR", np.zeros((32, 32)))
        dataset.Rows, dataset.Columns, dataset.PixelData = 300, 300, encapsulate([frame])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.InstanceNumber = [1, 1], number
        dataset.SOPInstanceUID = f"1.2.3.{number}"
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    assert "times" in reason(tmp_path)


def test_deflated_files_are_read_as_plain_ones(tmp_path: Path, dicom_image: Any, monkeypatch: Any) -> None:
    """Their pixels have a place, too, and a file cut short is not taken for a whole one."""
    pixels = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    dataset = dicom_image("MR", pixels)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "a.dcm"
    dataset.save_as(path, enforce_file_format=True)
    found, element = dicom_file.open_header(path, [0x00280010])
    assert found.Rows == 32
    assert element is not None
    with dicom_file.opened(path) as file:
        file.seek(element.offset)
        assert file.read(element.length or -1) == pixels.tobytes()
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(MedvarError, match="inflated"):
        dicom_file.open_dicom(path)
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    path.write_bytes(content[:start] + packer.compress(bytes(3 * 2**20)) + packer.flush())
    monkeypatch.setattr(header_limits, "SMALL_BYTES", 2**20)
    with pytest.raises(MedvarError, match="larger than"):
        dicom_file.open_dicom(path)
    assert segments_of(path) is None


# Pictures.


def test_jpegs_of_many_scans_are_refused(tmp_path: Path) -> None:
    """Breaks for a server: each scan takes a hundred bytes, and is decoded over the whole image."""
    path = tmp_path / "a.jpg"
    gradient = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(gradient).save(path, progressive=True)
    assert read_grey(path).shape == (64, 64)
    content = path.read_bytes()
    at = content.rindex(b"\xff\xda")
    path.write_bytes(content[:at] + content[at:-2] * 200 + content[-2:])
    with pytest.raises(MedvarError, match="scans"):
        read_grey(path)


def test_pages_of_a_tiff_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for a megabyte of empty pages, each of which was read to say how many there are."""
    images = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in range(3)]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])

    def count(_: Any) -> int:
        raise AssertionError("the pages are counted")

    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.n_frames", property(count))
    with pytest.raises(MedvarError, match="several frames"):
        read_grey(tmp_path / "a.tif")


def test_the_reader_of_slices_leaves_the_first_frame(tmp_path: Path) -> None:
    """What looks for a second frame must not spoil the first."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    write: dict[str, Callable[[Path], None]] = {
        "a.tif": lambda path: Image.fromarray(pixels).save(path),
        "a.png": lambda path: Image.fromarray(pixels).save(path),
        "a.webp": lambda path: Image.fromarray(pixels).save(path, lossless=True),
    }
    for name, save in write.items():
        save(tmp_path / name)
        np.testing.assert_array_equal(read_grey(tmp_path / name), pixels)


def test_pydicom_reads_what_is_saved_again(tmp_path: Path, dicom_image: Any) -> None:
    """The reader of elements must see them as pydicom does, large ones, too."""
    dataset = dicom_image("MR", np.zeros((32, 32)), ImageComments="x" * 9000)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert dicom_file.open_dicom(tmp_path / "a.dcm") == pydicom.dcmread(tmp_path / "a.dcm")
