"""Compare the pixels of a written file with a picture."""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.picture import Picture
from medvar_engine.write.png import write_png, write_png16
from medvar_engine.write.provenance import kind_of


def differing_pixels(file: Path, picture: Picture) -> int:
    """How many pixels of a PNG, NIfTI or DICOM file are not those of ``picture`` written in the same format.

    An image of another size differs in all of them. Raises `MedvarError` when the file's pixels cannot be read.
    """
    kind = kind_of(file)
    found = _pixels(file, kind)
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / file.name
        if kind == "png":
            fresh = (write_png16 if found.dtype == np.uint16 else write_png)(fresh.with_suffix(".png"), picture)
        elif kind == "dicom":
            fresh = write_dicom(fresh.with_suffix(".dcm"), picture)
        else:
            fresh, _ = write_nifti(fresh, picture)
        expected = _pixels(fresh, kind)
    return int((found != expected).sum()) if found.shape == expected.shape else max(found.size, expected.size)


def _pixels(file: Path, kind: str) -> npt.NDArray[np.generic]:
    try:
        if kind == "png":
            from PIL import Image

            with Image.open(file, formats=["PNG"]) as image:
                return np.asarray(image)
        if kind == "dicom":
            import pydicom

            return np.asarray(pydicom.dcmread(file).pixel_array)
        import nibabel

        return np.asarray(nibabel.Nifti1Image.from_filename(file).dataobj)
    except (OSError, EOFError, SyntaxError, ValueError, AttributeError, NotImplementedError, zlib.error) as error:
        raise MedvarError(f"The pixels of {file} cannot be read: {error}.") from error
