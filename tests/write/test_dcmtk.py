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
    "1.2.840.10008.1.2.4.80",
)
"""Lossless transfer syntaxes into which Orthanc transcodes."""


def test_what_an_archive_transcodes_replays(
    images: list[OutputImage], tmp_path: Path, orthanc: tuple[int, int]
) -> None:
    """An archive keeps its files in a syntax of its own choice, and gives them back in another."""
    port, http = orthanc
    of = {}
    for number, image in enumerate(images):
        path = write_dicom(tmp_path / f"{number}.dcm", image)
        of[str(pydicom.dcmread(path).SOPInstanceUID)] = image
        subprocess.run(["storescu", "127.0.0.1", str(port), path], check=True, timeout=60, capture_output=True)
    address = f"http://127.0.0.1:{http}/instances"
    with urllib.request.urlopen(address, timeout=10) as answer:
        stored = json.load(answer)
    assert len(stored) == len(images)
    for one in stored:
        for syntax in ARCHIVED:
            wish = {"Transcode": syntax, "Keep": ["SOPInstanceUID"], "Force": True}
            request = urllib.request.Request(f"{address}/{one}/modify", json.dumps(wish).encode())
            copy = tmp_path / "copy.dcm"
            with urllib.request.urlopen(request, timeout=30) as answer:
                copy.write_bytes(answer.read())
            dataset = pydicom.dcmread(copy, stop_before_pixels=True)
            assert dataset.file_meta.TransferSyntaxUID == syntax
            check(copy, of[str(dataset.SOPInstanceUID)], exact=True)
