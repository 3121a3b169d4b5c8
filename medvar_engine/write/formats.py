"""The file formats by name, and the functions that write an image in each."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.errors import MedvarError
from medvar_engine.storage import remove_older
from medvar_engine.write.dicom import Study, write_dicom
from medvar_engine.write.dicom_seg import check_place
from medvar_engine.write.mask_file import mask_path, write_mask
from medvar_engine.write.nifti import sidecar, write_nifti
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png, write_png16
from medvar_engine.write.provenance import check_written
from medvar_engine.write.written_mask import remove_older_mask

ENDINGS = {"png": ".png", "png16": ".png", "nifti": ".nii.gz", "dicom": ".dcm"}


def files_of(path: Path, name: str) -> list[Path]:
    """The files that `write_image` writes for ``path``, or removes: that of a mask if the image has none."""
    return [path, *([sidecar(path)] if name == "nifti" else []), mask_path(path, name)]


def remove_written(path: Path, name: str, *, mask: Path | None = None) -> None:
    """Remove what `write_image` wrote for ``path`` before, as a new image is withheld; files of other origin stay."""
    for file in (path, sidecar(path)) if name == "nifti" else (path,):
        remove_older(file, check_written)
    remove_older_mask(mask or mask_path(path, name))


def format_of(path: Path) -> tuple[str, str] | None:
    """The name of the format for the ending of ``path``, and that ending; None for an unknown ending."""
    for name, ending in (*ENDINGS.items(), ("nifti", ".nii")):
        if path.name.lower().endswith(ending):
            return name, ending
    return None


def save_image(image: OutputImage, path: str | Path) -> list[Path]:
    """Write an image in the format of the ending of ``path``: .png, .nii, .nii.gz or .dcm. Returns the files.

    A NIfTI file gets a ``.json`` beside it, and a mask is written to a separate file. Existing files are replaced.
    Every file is marked as synthetic. Raises `MedvarError` for an unknown ending.
    """
    path = Path(path)
    if (found := format_of(path)) is None:
        raise MedvarError(f"{path} must end in .png, .nii, .nii.gz or .dcm.")
    return write_image(path, found[0], image, Study(path.name), 1)


def write_image(
    path: Path, name: str, image: OutputImage, study: Study, number: int, *, mask: Path | None = None
) -> list[Path]:
    """Write an image, the ``number``-th of ``study``, in the format ``name`` of `ENDINGS`; returns the files.

    A mask is written to ``mask``, by default beside the image. Without a mask, that of an older image there is removed.
    """
    if name == "dicom":
        check_place(image)
    match name:
        case "png":
            files = [write_png(path, image)]
        case "png16":
            files = [write_png16(path, image)]
        case "nifti":
            files = write_nifti(path, image)
        case _:
            files = [write_dicom(path, image, study, number)]
    beside = mask or mask_path(path, name)
    if image.mask is None:
        remove_older_mask(beside)
    return files + write_mask(beside, name, image, path, study, number)
