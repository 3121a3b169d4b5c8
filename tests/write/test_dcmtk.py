"""What archives and their tools write: after every transfer syntax of DCMTK and Orthanc an image can be made again."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pydicom
import pytest

from medvar_engine.write.compare import differing_pixels
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import about_pixels, read_about_pixels, read_trace

# A program with its options, and whether it keeps every pixel.
WAYS = [
    *((f"dcmconv {syntax} {lengths} {groups}", True)
      for syntax in ("+ti", "+te", "+tb", "+td") for lengths in ("+e", "-e") for groups in ("-g", "+g")),
    ("dcmconv +te --enable-new-vr", True),
    ("dcmconv +te --disable-new-vr", True),  # UT becomes OB
    ("dcmconv +ti -F", True),  # without the meta header
    ("dcmconv +te +p 512 512", True),  # padded
    ("dcmcrle", True),
    ("dcmcrle -e -u", True),
    ("dcmcjpeg +e1", True),
    ("dcmcjpeg +el", True),
    ("dcmcjpeg +ee", False),
    ("dcmcjpls +el", True),
]  # fmt: skip
BACK = {"dcmcrle": "dcmdrle", "dcmcjpeg": "dcmdjpeg", "dcmcjpls": "dcmdjpls"}


def check(path: Path, image: OutputImage, *, exact: bool) -> None:
    """What `medvar replay` needs is there, and the pixels are those of the image."""
    assert read_trace(path).to_json() == image.trace.to_json()
    assert read_about_pixels(path) == about_pixels(image)
    different = differing_pixels(path, image)
    assert different == 0 or not exact


@pytest.mark.skipif(shutil.which("dcmconv") is None, reason="dcmconv is not installed (Debian: dcmtk)")
@pytest.mark.parametrize(("way", "exact"), WAYS, ids=[way.replace(" ", "") for way, _ in WAYS])
def test_what_dcmtk_writes_replays(images: list[OutputImage], tmp_path: Path, way: str, exact: bool) -> None:
    """A hospital's gateway changes the transfer syntax on the way: the image would come without what made it."""
    program, *options = way.split()
    for number, image in enumerate(images):
        path, other, back = (tmp_path / f"{number}{name}.dcm" for name in ("", "-other", "-back"))
        write_dicom(path, image)
        subprocess.run([program, *options, path, other], check=True, timeout=60, capture_output=True)
        check(other, image, exact=exact)
        if program in BACK:
            subprocess.run([BACK[program], other, back], check=True, timeout=60, capture_output=True)
            check(back, image, exact=exact)


ARCHIVED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
)
"""Lossless transfer syntaxes into which Orthanc transcodes. (It crashes at times where it writes JPEG-LS: 1.10.1.)"""


def test_what_an_archive_transcodes_replays(
    images: list[OutputImage], tmp_path: Path, orthanc: tuple[int, int]
) -> None:
    """An archive keeps its files in a syntax of its own choice, and gives them back in another."""
    of = store(images, tmp_path, orthanc[0])
    for one in stored(orthanc[1], len(images)):
        for syntax in ARCHIVED:
            copy = transcoded(one, syntax, tmp_path)
            dataset = pydicom.dcmread(copy, stop_before_pixels=True)
            assert dataset.file_meta.TransferSyntaxUID == syntax
            check(copy, of[str(dataset.SOPInstanceUID)], exact=True)


@pytest.mark.skipif(shutil.which("dcmcjpls") is None, reason="dcmcjpls is not installed (Debian: dcmtk)")
def test_what_an_archive_keeps_in_jpeg_ls_replays(
    images: list[OutputImage], tmp_path: Path, orthanc: tuple[int, int]
) -> None:
    """Archives that save space keep JPEG-LS, and give it back as it is or unpacked."""
    of = store(images, tmp_path, orthanc[0], jpeg_ls=True)
    for one in stored(orthanc[1], len(images)):
        kept = tmp_path / "kept.dcm"
        with urllib.request.urlopen(f"{one}/file", timeout=30) as answer:
            kept.write_bytes(answer.read())
        for copy, syntax in (
            (kept, "1.2.840.10008.1.2.4.80"),
            (transcoded(one, "1.2.840.10008.1.2.1", tmp_path), "1.2.840.10008.1.2.1"),
        ):
            dataset = pydicom.dcmread(copy, stop_before_pixels=True)
            assert dataset.file_meta.TransferSyntaxUID == syntax
            check(copy, of[str(dataset.SOPInstanceUID)], exact=True)


def store(images: list[OutputImage], folder: Path, port: int, *, jpeg_ls: bool = False) -> dict[str, OutputImage]:
    """Sends the images to an archive, in JPEG-LS if asked; returns them by SOP instance UID."""
    of = {}
    for number, image in enumerate(images):
        path = write_dicom(folder / f"{number}.dcm", image)
        of[str(pydicom.dcmread(path).SOPInstanceUID)] = image
        if jpeg_ls:
            subprocess.run(["dcmcjpls", "+el", path, path], check=True, timeout=60, capture_output=True)
        send = ["storescu", *(["-xt"] if jpeg_ls else []), "127.0.0.1", str(port), path]
        subprocess.run(send, check=True, timeout=60, capture_output=True)
    return of


def stored(port: int, count: int) -> list[str]:
    """The addresses of the instances in an archive."""
    address = f"http://127.0.0.1:{port}/instances"
    with urllib.request.urlopen(address, timeout=10) as answer:
        names = json.load(answer)
    assert len(names) == count
    return [f"{address}/{name}" for name in names]


def transcoded(instance: str, syntax: str, folder: Path) -> Path:
    """A file with an instance of an archive in another transfer syntax."""
    wish = {"Transcode": syntax, "Keep": ["SOPInstanceUID"], "Force": True}
    request = urllib.request.Request(f"{instance}/modify", json.dumps(wish).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        (folder / "copy.dcm").write_bytes(answer.read())
    return folder / "copy.dcm"
