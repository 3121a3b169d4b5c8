"""Files of strangers that are to hold one slice: whatever is in them, they are read or refused, and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.write.compare import differing_pixels
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.open_slice_file import MAX_BYTES, open_dicom, open_nifti, open_png
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png
from medvar_engine.write.provenance import read_about_pixels, read_trace

MakeImage = Callable[..., OutputImage]


def read_all(path: Path, image: OutputImage) -> None:
    """Everything that `medvar info` and `medvar replay` read; what is wrong is a `MedvarError`."""
    for read in (read_trace, read_about_pixels, lambda file: differing_pixels(file, image)):
        with contextlib.suppress(MedvarError):
            read(path)


def test_every_changed_byte_is_read_or_refused(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Breaks for damaged downloads and for strangers' files: a length, a UID or a dimension would give a traceback."""
    image = make_output_image()
    files = (write_png(tmp_path / "a.png", image), write_dicom(tmp_path / "a.dcm", image))
    files = (*files, write_nifti(tmp_path / "a.nii", image)[0], write_nifti(tmp_path / "a.nii.gz", image)[0])
    chance = np.random.default_rng(0)
    for path in files:
        content = path.read_bytes()
        for _ in range(60):
            changed = bytearray(content)
            at = int(chance.integers(min(len(content), 2000)))
            changed[at : at + int(chance.integers(1, 5))] = bytes(chance.choice([0, 1, 255, 127], 4).tolist())
            path.write_bytes(changed[: int(chance.integers(at, len(changed) + 1))] if at % 5 == 0 else changed)
            read_all(path, image)


@pytest.mark.parametrize("dims", [(3, -5, 128, 1), (3, 5, -128, 1), (7, 32767, 32767, 32767), (-3, 4, 4, 1)])
def test_impossible_dimensions_are_refused(make_output_image: MakeImage, tmp_path: Path, dims: tuple[int, ...]) -> None:
    """Breaks for a header of two bytes changed: memory was mapped of a negative length."""
    path = write_nifti(tmp_path / "a.nii", make_output_image())[0]
    content = bytearray(path.read_bytes())
    content[40 : 40 + 2 * len(dims)] = struct.pack(f"<{len(dims)}h", *dims)
    path.write_bytes(content)
    with pytest.raises(MedvarError, match=r"a\.nii"):
        open_nifti(path)
    read_all(path, make_output_image())


def test_bombs_take_no_memory(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Breaks for a file of 2 MB: it would take gigabytes before anybody looked at it."""
    image, zeros = make_output_image(), b"\0" * 2**20
    bombs = []
    with gzip.open(tmp_path / "extension.nii.gz", "wb", compresslevel=1) as file:
        header = bytearray(nibabel.Nifti1Image(np.zeros((4, 4, 1), np.int16), np.eye(4)).to_bytes()[:348])
        struct.pack_into("<f", header, 108, 300e6)
        file.write(bytes(header) + b"\1\0\0\0" + struct.pack("<2i", 299 * 2**20, 6))
        for _ in range(300):
            file.write(zeros)
    bombs.append(tmp_path / "extension.nii.gz")
    path = write_dicom(tmp_path / "deflated.dcm", image)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)
    packer = zlib.compressobj(1, wbits=-15)
    start = 144 + int.from_bytes(path.read_bytes()[140:144], "little")
    tail = b"".join(packer.compress(zeros) for _ in range(300)) + packer.flush()
    path.write_bytes(path.read_bytes()[:start] + tail)
    bombs.append(path)
    for bomb in bombs:
        tracemalloc.start()
        with pytest.raises(MedvarError, match="larger"):
            read_trace(bomb)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20 + 4 * MAX_BYTES
        tracemalloc.stop()


def test_false_claims_are_refused(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Breaks for headers that claim more pixels than memory holds."""
    png = write_png(tmp_path / "a.png", make_output_image())
    content = bytearray(png.read_bytes())
    content[16:24] = struct.pack(">2I", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    png.write_bytes(content)
    path = write_dicom(tmp_path / "a.dcm", make_output_image())
    dataset = pydicom.dcmread(path)
    dataset.Rows = dataset.Columns = 60_000
    dataset.save_as(path)
    for opened, file in ((open_png, png), (open_dicom, path)):
        with pytest.raises(MedvarError, match=file.name):
            opened(file)


def test_endless_sequences_are_reported(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Breaks for a few kilobytes: each item within the other took a call, until Python had no more."""
    path = write_dicom(tmp_path / "a.dcm", make_output_image())
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    deep = b"\x08\x00\x96\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 2000
    path.write_bytes(content[:start] + deep + content[start:])
    read_all(path, make_output_image())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.nii.gz", "a.dcm"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """Breaks for a shared folder: whoever may put a pipe there would stop the program."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(MedvarError, match="no file"):
        read_trace(tmp_path / name)
