"""A real image that was encoded shows a patient: no file may call it synthetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from medvar_engine.cli.main import main
from medvar_engine.data.read.dicom_header import read_headers
from medvar_engine.data.read.read_nifti import check
from medvar_engine.data.read.read_slice import read_grey
from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Encoded, Resample
from medvar_engine.generate.trace import Trace
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.write.burn_in import burn_in
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png, write_png16
from medvar_engine.write.provenance import RECONSTRUCTION, STATEMENT

NEAR, FAR = CopyRisk(0.1, 0.2), CopyRisk(0.9, 0.2)
MakeTrace = Callable[..., Trace]
MakeImage = Callable[..., OutputImage]


@pytest.fixture
def encoded(make_trace: MakeTrace) -> Trace:
    return replace(make_trace(), edit=Encoded("00ff"), entropy=())


@pytest.fixture
def resampled(make_trace: MakeTrace, encoded: Trace) -> Trace:
    return replace(make_trace(), edit=Resample(1), parent=encoded)


def test_reconstructions_are_recognised(
    make_output_image: MakeImage, make_trace: MakeTrace, encoded: Trace, resampled: Trace
) -> None:
    assert make_output_image(trace=encoded).reconstruction
    assert make_output_image(trace=encoded, copy_risk=FAR).reconstruction
    assert make_output_image(trace=resampled, copy_risk=NEAR).reconstruction
    assert not make_output_image(trace=resampled, copy_risk=FAR).reconstruction
    assert not make_output_image(trace=make_trace(), copy_risk=NEAR).reconstruction


@pytest.mark.parametrize("write", [write_png, write_png16])
def test_png_states_the_reconstruction(
    tmp_path: Path, make_output_image: MakeImage, encoded: Trace, write: Callable[..., Path]
) -> None:
    file = write(tmp_path / "a.png", make_output_image(trace=encoded))
    with Image.open(file) as image:
        assert image.info["Synthetic"].startswith("no")
        assert image.info["Description"] == RECONSTRUCTION
    with pytest.raises(MedvarError, match="made by a generative model"):
        read_grey(file)


def test_nifti_states_the_reconstruction(tmp_path: Path, make_output_image: MakeImage, encoded: Trace) -> None:
    file, beside = write_nifti(tmp_path / "a.nii.gz", make_output_image(trace=encoded))
    header = nibabel.load(file).header
    inside = json.loads(header.extensions[0].text.rstrip("\0"))
    for about in (inside, json.loads(beside.read_text())):
        assert about["synthetic"] is False
        assert about["reconstruction"] is True
        assert about["statement"] == RECONSTRUCTION
    assert bytes(header["descrip"]).startswith(b"RECONSTRUCTION")
    with pytest.raises(MedvarError, match="made by a generative model"):
        check(file, synthetic=False)


def test_dicom_states_the_reconstruction(tmp_path: Path, make_output_image: MakeImage, encoded: Trace) -> None:
    file = write_dicom(tmp_path / "a.dcm", make_output_image(trace=encoded))
    dataset = pydicom.dcmread(file)
    assert dataset.SyntheticData == "NO"
    assert RECONSTRUCTION in dataset.ImageComments
    purpose = dataset.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodeMeaning) == ("109103", "Modifying Equipment")
    del dataset[0x0099, 0x0010]
    assert "SYNTHETIC" not in str(dataset).upper().replace("SYNTHETIC DATA", "")
    with pytest.raises(MedvarError, match="made by a generative model"):
        read_headers(file)


def test_reconstructions_are_not_marked_synthetic(make_output_image: MakeImage, encoded: Trace) -> None:
    pixels = np.zeros((128, 128), dtype=np.float32)
    with pytest.raises(MedvarError, match="shows a patient"):
        burn_in(make_output_image(trace=encoded, pixels=pixels))


def test_only_owned_images_pass_the_gate() -> None:
    """An encoded training slice would leave as nobody's image; and a user could not save their own."""

    class Gate:
        def risk(self, image: object) -> CopyRisk:
            return NEAR

    images = [np.zeros((2, 2), np.float32)] * 3
    found = screen(images, CopyScreen("withhold", Gate()), owned=[1])  # type: ignore[arg-type]
    assert (found.flagged, found.withheld, found.kept) == ((0, 1, 2), (0, 2), (1,))


def test_all_others_stay_synthetic(tmp_path: Path, make_output_image: MakeImage) -> None:
    with Image.open(write_png(tmp_path / "a.png", make_output_image())) as image:
        assert (image.info["Synthetic"], image.info["Description"]) == ("yes", STATEMENT)
    assert pydicom.dcmread(write_dicom(tmp_path / "a.dcm", make_output_image())).SyntheticData == "YES"


def test_info_says_that_a_reconstruction_shows_a_patient(
    tmp_path: Path,
    make_output_image: MakeImage,
    encoded: Trace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Somebody would pass on an image of a patient as a synthetic one."""
    for trace, said in (
        ({"trace": encoded}, "a reconstruction of a real image, which shows a patient"),
        ({}, "synthetic"),
    ):
        file = write_png(tmp_path / "a.png", make_output_image(**trace))
        monkeypatch.setattr("sys.argv", ["medvar", "info", str(file)])
        with pytest.raises(SystemExit, match="0"):
            main()
        assert f"a.png: {said}, made by medvar" in " ".join(capsys.readouterr().out.split())
