"""Bombs in NIfTI, NRRD and MetaImage."""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from bomb_readers import MIB, bomb, image, scan


def nifti(shape: tuple[int, ...], dtype: Any = np.int16, offset: float = 352.0) -> bytes:
    """A header of NIfTI-1."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["dim"][len(shape) + 1 :] = 1
    header["sform_code"], header["magic"], header["vox_offset"] = 1, b"n+1", offset
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
    header["pixdim"] = 1
    return bytes(header.binaryblock) + bytes(4)


ZEROS = gzip.compress(bytes(MIB), 9)


def zeros(path: Path, head: bytes, size: int) -> Path:
    """A packed file of a header and ``size`` zeros."""
    path.write_bytes(gzip.compress(head, 1) + ZEROS * (size // MIB))  # gzip allows several parts
    return path


@bomb(scan)
def nifti_of_huge_dimensions(folder: Path) -> Path:
    """NIfTI of huge dimensions."""
    (folder / "a.nii").write_bytes(nifti((32767, 32767, 4)) + bytes(1000))
    return folder / "a.nii"


@bomb(scan)
def nifti_packed_that_claims_what_deflate_could(folder: Path) -> Path:
    """NIfTI packed that claims what deflate could."""
    noise = np.random.default_rng(0).bytes(4 * MIB)
    (folder / "a.nii.gz").write_bytes(gzip.compress(nifti((1024, 1024, 1500)) + noise, 1))
    return folder / "a.nii.gz"


@bomb(scan)
def nifti_packed_zeros(folder: Path) -> Path:
    """NIfTI packed zeros."""
    return zeros(folder / "a.nii.gz", nifti((1024, 1024, 512)), 1024 * MIB)


@bomb(scan, honest=4 * 2**25)
def nifti_packed_zeros_that_a_scan_may_hold(folder: Path) -> Path:
    """NIfTI packed zeros that a scan may hold."""
    return zeros(folder / "a.nii.gz", nifti((512, 512, 128)), 64 * MIB)


@bomb(scan)
def nifti_packed_with_a_huge_extension(folder: Path) -> Path:
    """NIfTI packed with a huge extension."""
    head = nifti((4, 4, 4), offset=60e6)[:348] + b"\1\0\0\0" + struct.pack("<2i", 59 * MIB, 6)
    return zeros(folder / "a.nii.gz", head, 300 * MIB)


@bomb(scan)
def nifti_packed_with_many_extensions(folder: Path) -> Path:
    """NIfTI packed with many extensions."""
    one = struct.pack("<2i", 16, 6) + b"{}      "
    count = 60 * MIB // 16
    head = nifti((4, 4, 4), offset=352 + 16 * count)[:348] + b"\1\0\0\0"
    (folder / "a.nii.gz").write_bytes(gzip.compress(head + one * count + bytes(128), 1))
    return folder / "a.nii.gz"


@bomb(image, honest=64 * MIB)
def nifti_image_with_many_extensions(folder: Path) -> Path:
    """NIfTI image with many extensions."""
    return nifti_packed_with_many_extensions(folder)


@bomb(image, honest=64 * MIB)
def nifti_image_that_unfolds(folder: Path) -> Path:
    """NIfTI image that unfolds."""
    return zeros(folder / "a.nii.gz", nifti((4096, 4096, 1)), 1024 * MIB)


def nrrd(claim: str, encoding: str) -> bytes:
    """A header of NRRD."""
    space = "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)"
    lines = ["NRRD0004", "type: short", "dimension: 3", space, f"sizes: {claim}", f"encoding: {encoding}"]
    return "\n".join([*lines, "endian: little", "", ""]).encode()


@bomb(scan)
def nrrd_packed_that_claims_what_deflate_could(folder: Path) -> Path:
    """NRRD packed that claims what deflate could."""
    noise = np.random.default_rng(0).bytes(4 * MIB)
    (folder / "a.nrrd").write_bytes(nrrd("1024 1024 1500", "gzip") + gzip.compress(noise, 1))
    return folder / "a.nrrd"


@bomb(scan)
def nrrd_packed_zeros(folder: Path) -> Path:
    """NRRD packed zeros."""
    (folder / "a.nrrd").write_bytes(nrrd("1024 1024 512", "gzip"))
    zeros(folder / "packed", b"", 1024 * MIB)
    with (folder / "a.nrrd").open("ab") as file:
        file.write((folder / "packed").read_bytes())
    (folder / "packed").unlink()
    return folder / "a.nrrd"


@bomb(scan)
def nrrd_packed_by_bzip2_claims(folder: Path) -> Path:
    """NRRD packed by bzip2 claims."""
    (folder / "a.nrrd").write_bytes(nrrd("1024 1024 1024", "bzip2") + bz2.compress(bytes(1000)))
    return folder / "a.nrrd"


@bomb(scan)
def nrrd_packed_by_bzip2_zeros(folder: Path) -> Path:
    """NRRD packed by bzip2 zeros."""
    (folder / "a.nrrd").write_bytes(nrrd("1024 1024 512", "bzip2") + bz2.compress(bytes(1024 * MIB)))
    return folder / "a.nrrd"


@bomb(scan)
def nrrd_of_a_huge_header(folder: Path) -> Path:
    """NRRD of a huge header."""
    (folder / "a.nrrd").write_bytes(nrrd("4 4 4", "raw")[:-2] + b"\n" + b"#\n" * (64 * MIB) + b"\n" + bytes(128))
    return folder / "a.nrrd"


@bomb(scan)
def metaimage_packed_zeros(folder: Path) -> Path:
    """Metaimage packed zeros."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(1024)) + packer.flush()
    said = {"NDims": 3, "DimSize": "1024 1024 512", "ElementType": "MET_SHORT", "ElementSpacing": "1 1 1"}
    said |= {"TransformMatrix": "1 0 0 0 1 0 0 0 1", "CompressedData": "True", "CompressedDataSize": len(packed)}
    head = "".join(f"{name} = {value}\n" for name, value in said.items())
    (folder / "a.mha").write_bytes(head.encode() + b"ElementDataFile = LOCAL\n" + packed)
    return folder / "a.mha"
