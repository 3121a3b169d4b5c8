"""Small synthetic scans. All are one phantom, so that whatever the format, the same patient must come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SPACING = (1.5, 1.25, 2.0)
ORIGIN = (-30.0, 12.0, 100.0)
AFFINE = np.diag([*SPACING, 1.0])
AFFINE[:3, 3] = ORIGIN

Change = Callable[[int, FileDataset], Any]


def make_phantom(shape: tuple[int, int, int] = (48, 44, 42)) -> np.ndarray:
    """RAS+ int16 array: textured, brighter to the right, front and head of the patient, a blob in that corner."""
    x, y, z = np.meshgrid(*(np.linspace(0, 1, side) for side in shape), indexing="ij")
    texture = np.random.default_rng(0).integers(0, 40, shape)
    array = 100 + 200 * x + 300 * y + 400 * z + texture
    array[-10:, -9:, -8:] = 1500
    return array.astype(np.int16)


@pytest.fixture(scope="session")
def phantom() -> np.ndarray:
    return make_phantom()


@pytest.fixture(scope="session")
def affine() -> np.ndarray:
    return AFFINE.copy()


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, codes: str = "RAS") -> Path:
    """Write an RAS+ array as NIfTI with its axes stored in another order."""
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image.as_reoriented(turn)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return path


def frames_of(array: np.ndarray, plane: str) -> list[tuple[np.ndarray, list[float], list[float], list[float]]]:
    """(pixels, position LPS, orientation, pixel spacing) of every slice, as a scanner would acquire the plane."""
    (nx, ny, nz), (sx, sy, sz) = array.shape, SPACING

    def place(i: int, j: int, k: int) -> list[float]:
        x, y, z = (AFFINE @ [i, j, k, 1])[:3]
        return [-x, -y, z]

    if plane == "axial":
        return [(array[::-1, ::-1, k].T, place(nx - 1, ny - 1, k), [1, 0, 0, 0, 1, 0], [sy, sx]) for k in range(nz)]
    if plane == "sagittal":
        return [(array[i, ::-1, ::-1].T, place(i, ny - 1, nz - 1), [0, 1, 0, 0, 0, -1], [sz, sy]) for i in range(nx)]
    return [(array[::-1, j, ::-1].T, place(nx - 1, j, nz - 1), [1, 0, 0, 0, 0, -1], [sz, sx]) for j in range(ny)]


def new_dataset(modality: str, pixels: np.ndarray, **tags: Any) -> FileDataset:
    """A DICOM image of 12 stored bits in 16."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = dataset.FrameOfReferenceUID = "1.2.3.4"
    dataset.PatientID, dataset.Modality, dataset.ImageType = "someone", modality, ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.PixelData = np.ascontiguousarray(pixels, dtype=np.uint16).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def save_series(
    folder: Path,
    array: np.ndarray,
    plane: str = "axial",
    modality: str = "MR",
    change: Change | None = None,
    **tags: Any,
) -> list[Path]:
    """Write an RAS+ array as one DICOM file a slice. ``change`` may alter a slice, or return False to leave it out."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (pixels, position, orientation, spacing) in enumerate(frames_of(array, plane)):
        dataset = new_dataset(modality, pixels)
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position, orientation
        dataset.PixelSpacing, dataset.InstanceNumber = spacing, number + 1
        for name, value in tags.items():
            setattr(dataset, name, value)
        if change is not None and change(number, dataset) is False:
            continue
        path = folder / f"{(number * 7) % 100:03d}-{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return sorted(paths)


def save_multiframe(path: Path, array: np.ndarray, phases: int = 1, geometry: bool = True) -> Path:
    """Write sagittal frames as one file; phase p is the array plus p. Without ``geometry``: an old cine loop.

    With geometry the frames are stored in no order, as the standard allows.
    """
    frames = frames_of(array, "sagittal")
    order = [(number, phase) for number in range(len(frames)) for phase in range(phases)]
    if geometry:
        order = [order[i] for i in np.random.default_rng(0).permutation(len(order))]
    pixels = [frames[number][0] + phase for number, phase in order]
    dataset = new_dataset("MR", np.stack(pixels), NumberOfFrames=len(pixels), PixelSpacing=[2.0, 1.25])
    if geometry:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
        orientation, measures = Dataset(), Dataset()
        orientation.ImageOrientationPatient, measures.PixelSpacing = frames[0][2], frames[0][3]
        shared = Dataset()
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
        dataset.SharedFunctionalGroupsSequence = [shared]
        groups = []
        for number, phase in order:
            position, content, group = Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = frames[number][1]
            content.DimensionIndexValues = [1, number + 1, phase + 1]
            group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
            groups.append(group)
        dataset.PerFrameFunctionalGroupsSequence = groups
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="session")
def nifti() -> Callable[..., Path]:
    return save_nifti


@pytest.fixture(scope="session")
def series() -> Callable[..., list[Path]]:
    return save_series


@pytest.fixture(scope="session")
def multiframe() -> Callable[..., Path]:
    return save_multiframe


@pytest.fixture(scope="session")
def dicom_image() -> Callable[..., FileDataset]:
    return new_dataset
