"""Damaged and hostile files: each is read or refused with its name and the reason, and nothing else ever happens."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from medvar_engine.data.read import dicom_file
from medvar_engine.data.read.scans import find_series
from medvar_engine.errors import MedvarError


def reasons_of(source: Path) -> list[str]:
    """Why files and series below ``source`` are refused. Anything but `MedvarError` passes through, and fails."""
    found, refusals = find_series(source)
    reasons = [str(one) for one in refusals]
    for one in found:
        try:
            for volume in one.load():
                assert np.isfinite(volume.array).all()
        except MedvarError as error:
            reasons.append(str(error))
    return reasons


def meta(claim: str, **fields: Any) -> bytes:
    told = {"NDims": 3, "DimSize": claim, "ElementType": "MET_SHORT", "ElementSpacing": "1 1 1", **fields}
    return "".join(f"{name} = {value}\n" for name, value in told.items()).encode() + b"ElementDataFile = LOCAL\n"


def nrrd(claim: str, encoding: str = "raw") -> bytes:
    space = "space directions: (1,0,0) (0,1,0) (0,0,1)"
    lines = ["NRRD0004", "type: short", "dimension: 3", f"sizes: {claim}", space, f"encoding: {encoding}"]
    return "\n".join([*lines, "endian: little", "", ""]).encode()


def nifti_1(claim: list[int]) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"], header["sform_code"], header["magic"], header["vox_offset"] = [3, *claim, 1, 1, 1, 1], 1, b"n+1", 352
    return bytes(header.binaryblock) + bytes(4)


def nifti_2(claim: list[int]) -> bytes:
    header = nib.Nifti2Header()
    header.set_data_dtype(np.float64)
    header["dim"], header["sform_code"], header["vox_offset"] = [3, *claim, 1, 1, 1, 1], 1, 544
    return bytes(header.binaryblock) + bytes(4)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scan.nii", nifti_1([10000, 10000, 10000])),
        ("scan.nii", nifti_1([-5, 10, 10])),
        ("scan.nii", nifti_2([10**6, 10**6, 10**6])),
        ("scan.nii.gz", gzip.compress(nifti_1([10000, 10000, 10000]))),
        ("scan.nii.gz", gzip.compress(nifti_2([2**62, 2**62, 2**62]))),
        ("scan.mha", meta("10000 10000 10000") + bytes(100)),
        ("scan.mha", meta("10000 10000 10000", CompressedData="True", CompressedDataSize=100) + bytes(100)),
        ("scan.mha", meta("4 4 4", CompressedData="True", CompressedDataSize=10**12) + bytes(100)),
        ("scan.mha", meta("4 4 4", HeaderSize=10**15) + bytes(128)),
        ("scan.mha", meta("4 -4 4") + bytes(128)),
        ("scan.mha", meta("4 4") + bytes(128)),
        ("scan.mha", meta("4 4 4", ElementType="MET_OTHER") + bytes(128)),
        ("scan.nrrd", nrrd("10000 10000 10000") + bytes(100)),
        ("scan.nrrd", nrrd("10000 10000 10000", "gzip") + gzip.compress(bytes(100))),
        ("scan.nrrd", nrrd("10000 10000 10000", "bzip2") + bytes(100)),
        ("scan.nrrd", nrrd("4 0 4") + bytes(100)),
        ("scan.nrrd", nrrd("4 4 4", "zstd") + bytes(128)),
        ("scan.nrrd", nrrd("4 4 4").replace(b"raw", b"raw\nsizes: 9 9 9") + bytes(128)),
    ],
)
def test_impossible_claims_are_refused_by_the_header(tmp_path: Path, name: str, content: bytes) -> None:
    """Breaks for a server: a file of some hundred bytes takes all its memory."""
    (tmp_path / name).write_bytes(content)
    found, (refusal,) = find_series(tmp_path)
    assert not found
    assert any(word in refusal.reason for word in ("claims", "malformed", "lacks or does not know"))


def test_dicom_that_claims_more_than_it_has(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for a server, as above: rows, columns and frames are multiplied before a frame is decoded."""
    for number, tags in enumerate([{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 10**9}]):
        dataset = dicom_image("MR", np.zeros((32, 32)), **tags)
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
        dataset = dicom_image("MR", np.zeros((32, 32)))
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.SeriesInstanceUID = f"1.2.{number}"
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [1, 1]
        dataset.save_as(tmp_path / f"{number}-packed.dcm", enforce_file_format=True)
    assert len(reasons_of(tmp_path)) == 4


def test_an_inflating_extension_is_refused(tmp_path: Path) -> None:
    """Breaks for a server: nibabel reads what lies before the voxels into memory."""
    header = bytearray(nifti_1([4, 4, 4]))
    header[108:112] = struct.pack("<f", 2e9)
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(10**6)))
    assert "voxels begin" in reasons_of(tmp_path)[0]


def test_deflated_dicom_bomb(tmp_path: Path, dicom_image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for a server: pydicom inflates such files as a whole, in memory."""
    dataset = dicom_image("MR", np.zeros((32, 32)))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.ImageComments = " " * 10_000
    dataset.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    monkeypatch.setitem(dicom_file.open_header.__kwdefaults__, "largest", 5_000)
    assert "larger than" in reasons_of(tmp_path)[0]
    path = tmp_path / "scan.dcm"
    path.write_bytes(path.read_bytes()[:-20] + b"\xff" * 20)
    assert reasons_of(tmp_path)


def test_deeply_nested_sequences_are_refused(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for a server: a sequence in a sequence in a sequence ends in a RecursionError."""
    dataset = dicom_image("MR", np.zeros((32, 32)))
    dataset.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    sequence, item = b"\x18\x00\x01\xa0SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    content = (tmp_path / "scan.dcm").read_bytes()
    at = content.index(b"\x20\x00\x0d\x00UI")  # StudyInstanceUID follows ContributingEquipmentSequence
    (tmp_path / "scan.dcm").write_bytes(content[:at] + (sequence + item) * 5000 + content[at:])
    assert reasons_of(tmp_path)


SUFFIXES = (".dcm", ".nii", ".nii.gz", ".nrrd", ".mha", ".zip", ".tar.gz", ".hdr")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mislabelled_files(tmp_path: Path, seeds: dict[str, bytes], suffix: str) -> None:
    """Breaks for folders with files of wrong names: each must be named, and none taken for what it is not."""
    for number, (name, content) in enumerate(seeds.items()):
        (tmp_path / f"{number}{suffix}").write_bytes(content)
        if name.endswith(suffix) or (suffix == ".hdr" and name.endswith(".nii")):
            (tmp_path / f"{number}{suffix}").unlink()
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    (tmp_path / f"noise{suffix}").write_bytes(np.random.default_rng(0).bytes(3000))
    files = {path.name for path in tmp_path.iterdir()}
    reasons = reasons_of(tmp_path)
    assert {name for name in files if any(f"/{name}" in reason for reason in reasons)} == files


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, multiframe: Any, series: Any) -> dict[str, bytes]:
    """A small good file of each format: name → content."""
    folder = tmp_path_factory.mktemp("seeds")
    array = np.random.default_rng(0).integers(0, 4000, (3, 32, 33)).astype(np.int16)
    affine = np.diag([1.5, 1.25, 2, 1])
    for name in ("a.nii", "b.nii.gz"):
        nib.save(nib.Nifti1Image(array, affine), folder / name)
    nib.save(nib.Nifti2Image(array.astype(np.float64), affine), folder / "c.nii")
    image = sitk.GetImageFromArray(array)
    for name, packed in (("d.nrrd", True), ("e.nrrd", False), ("f.mha", True), ("g.mha", False)):
        sitk.WriteImage(image, str(folder / name), packed)
    multiframe(folder / "h.dcm", array)
    for number, syntax in enumerate(("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")):
        dataset = pydicom.dcmread(folder / "h.dcm")
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / f"i{number}.dcm")
    content = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert not reasons_of(folder)
    with zipfile.ZipFile(folder / "j.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.nii", content["a.nii"])
    with tarfile.open(folder / "k.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("a.nii")
        entry.size = len(content["a.nii"])
        tar.addfile(entry, io.BytesIO(content["a.nii"]))
    return content | {name: (folder / name).read_bytes() for name in ("j.zip", "k.tar.gz")}


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.97])
def test_truncated_files(tmp_path: Path, seeds: dict[str, bytes], keep: float) -> None:
    """Breaks for broken downloads: each must be named, or half a patient passes for a whole one."""
    for name, content in seeds.items():
        (tmp_path / name).write_bytes(content[: int(len(content) * keep)])
    reasons = reasons_of(tmp_path)
    assert {name for name in seeds if any(f"/{name}" in reason for reason in reasons)} == set(seeds)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes(tmp_path: Path, seeds: dict[str, bytes], data: st.DataObject) -> None:
    """Breaks for damaged disks and for whoever is sent a hostile file: one traceback ends a run of days."""
    name = data.draw(st.sampled_from(sorted(seeds)))
    content = bytearray(seeds[name])
    # Headers lie in front, and in a zip at the end; most changes of voxels change nothing.
    near = st.integers(0, min(len(content) - 1, 1500)) | st.integers(max(0, len(content) - 150), len(content) - 1)
    for at in data.draw(st.lists(near, min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / name).write_bytes(content)
    for reason in reasons_of(tmp_path):
        assert name in reason
    assert [path.name for path in tmp_path.iterdir()] == [name]
