from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import read_trace

MakeImage = Callable[..., OutputImage]

# Where each plane's first row and first column of pixels lie, and where the last ones lie.
PLANES = [
    ("axial", "A", "P", "R", "L"),
    ("coronal", "S", "I", "R", "L"),
    ("sagittal", "S", "I", "A", "P"),
    (None, "A", "P", "R", "L"),
]
DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


@pytest.mark.parametrize(("plane", "top", "bottom", "left", "right"), PLANES, ids=str)
def test_the_slice_lies_as_its_plane_says(
    make_output_image: MakeImage,
    make_trace: Callable[..., Trace],
    tmp_path: Path,
    plane: str | None,
    top: str,
    bottom: str,
    left: str,
    right: str,
) -> None:
    """Left and right would be swapped in every viewer, or a coronal slice would lie flat."""
    trace = make_trace(condition=Condition("CT", plane=plane))
    path, _ = write_nifti(tmp_path / "a.nii", make_output_image(trace=trace))
    image = nibabel.load(path)
    assert image.shape == (4, 6, 1)
    data = np.asarray(image.dataobj)

    def place(column: int, row: int) -> np.ndarray:
        return image.affine[:3] @ [column, row, 0, 1]

    assert data[0, 0, 0] == -1000
    assert data[3, 5, 0] == 400
    assert data[1, 0, 0] < data[0, 1, 0]  # columns first: a row of the image rises by 1, a column by 4
    for start, end, (first, last), count in (
        (top, bottom, (place(0, 0), place(0, 5)), 5),
        (left, right, (place(0, 0), place(3, 0)), 3),
    ):
        axis, sign = DIRECTIONS[start]
        assert DIRECTIONS[end] == (axis, -sign)
        expected = np.zeros(3)
        expected[axis] = sign * count * 0.75
        np.testing.assert_allclose(first - last, expected, atol=1e-6)
    np.testing.assert_allclose((place(0, 0) + place(3, 5)) / 2, 0, atol=1e-6)
    assert np.linalg.det(image.affine[:3, :3]) == pytest.approx(0.75**3)


def test_ct_is_in_hounsfield_units(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Measuring the density of a lesion would give numbers of no meaning."""
    pixels = np.array([[-1, -0.5], [0, 1], [2, -2]], dtype=np.float32)
    path, _ = write_nifti(tmp_path / "a.nii.gz", make_output_image(pixels=pixels))
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.int16
    assert np.asarray(image.dataobj)[..., 0].T.tolist() == [[-1000, -650], [-300, 400], [400, -1000]]
    assert (float(image.header["cal_min"]), float(image.header["cal_max"])) == (-1000, 400)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header.get_zooms() == pytest.approx((0.75, 0.75, 0.75))


def test_mr_keeps_its_fractions(make_output_image: MakeImage, tmp_path: Path) -> None:
    """MR in 0…1 would be rounded to black and white."""
    path, _ = write_nifti(tmp_path / "a.nii", make_output_image(low=0.0, high=1.0, unit="arbitrary", spacing_mm=None))
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.asarray(image.dataobj)[..., 0].T.ravel(), np.linspace(0, 1, 24), atol=1e-6)
    assert image.header.get_xyzt_units()[0] == "unknown"


def test_says_that_it_is_synthetic_and_how_it_was_made(make_output_image: MakeImage, tmp_path: Path) -> None:
    """A made slice could be taken for a patient's, or never be made again."""
    image = make_output_image()
    for name in ("a.nii", "b.nii.gz"):
        path, sidecar = write_nifti(tmp_path / name, image)
        assert sidecar == tmp_path / f"{name[0]}.json"
        header = nibabel.load(path).header
        assert bytes(header["descrip"]).startswith(b"SYNTHETIC")
        assert header.extensions[0].get_code() == 6
        inside, beside = json.loads(header.extensions[0].text), json.loads(sidecar.read_text())
        assert inside == beside
        assert inside["synthetic"] is True
        assert inside["unit"] == "HU"
        assert inside["condition"] == {"modality": "CT", "region": "chest"}
        assert read_trace(path).to_json() == image.trace.to_json()


def test_other_programs_accept_the_file(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Viewers and pipelines stricter than nibabel would refuse the file."""
    if shutil.which("nifti_tool") is None:
        pytest.skip("nifti_tool (Debian: nifti-bin) is not installed")
    for name in ("a.nii", "b.nii.gz"):
        path, _ = write_nifti(tmp_path / name, make_output_image())
        command = ["nifti_tool", "-check_hdr", "-check_nim", "-infiles", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (done.stdout + done.stderr).count("IS GOOD") == 2, done.stdout


def test_qform_and_sform_agree(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Programs that prefer one to the other would show two places."""
    path, _ = write_nifti(tmp_path / "a.nii", make_output_image())
    image = nibabel.load(path)
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)


def test_the_same_image_is_the_same_file(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Reproducing a data set would change files that did not change."""
    one, _ = write_nifti(tmp_path / "a.nii.gz", make_output_image())
    two, _ = write_nifti(tmp_path / "b.nii.gz", make_output_image())
    assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress(one.read_bytes())[344:347] == b"n+1"


def test_impossible_images_are_refused(
    make_output_image: MakeImage, make_trace: Callable[..., Trace], tmp_path: Path
) -> None:
    """A slice of an unheard-of plane would be placed wrongly; a .img would be half a file."""
    oblique = make_output_image(trace=make_trace(condition=Condition(plane="oblique")))
    with pytest.raises(MedvarError, match="oblique"):
        write_nifti(tmp_path / "a.nii", oblique)
    with pytest.raises(MedvarError, match=r"\.nii or \.nii\.gz"):
        write_nifti(tmp_path / "a.img", make_output_image())
    assert list(tmp_path.iterdir()) == []
