"""Label maps for single axial CT slices of the chest, found by thresholds, so that models of pairs can be measured.

    python benchmarks/threshold_pairs.py SLICES OUT

SLICES is a folder of single slices with an `index.csv` (see `docs/reference/slice-index.md`). Slices of the chest in HU
are used: air in the body (lungs, and gas) and what is denser than 180 HU (bone, and contrast medium) are the two
structures. These are no anatomical labels of an expert; they show how well a model of pairs does with some tens of
patients. OUT gets volumes in the layout of a decathlon, with `index.csv` and `masks.yaml`, and the call of
`medvar prepare` is printed. A scan needs three slices, so each slice lies between two of air, which are not prepared.
"""

from __future__ import annotations

import argparse
import csv
import shlex
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

AIR, DENSE = 1, 2
THICKNESS = 5.0  # mm; single slices do not tell
COLUMNS = ("path", "patient", "modality", "region", "plane", "source", "licence")
MASKS = f"""scans: "imagesTr/{{case}}.nii.gz"
labels: "labelsTr/{{case}}.nii.gz"
structures: {{{AIR}: air, {DENSE}: dense}}
"""


def main() -> None:
    """Write the folder and print how to prepare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for folder in ("imagesTr", "labelsTr"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    rows, held_out = [], set()
    for row in csv.DictReader((options.slices / "index.csv").open(encoding="utf-8")):
        if (row["modality"], row["region"], row["plane"], row["unit"]) != ("CT", "chest", "axial", "HU"):
            continue
        low, high, spacing = (float(row[name]) for name in ("low", "high", "spacing_mm"))
        with Image.open(options.slices / row["path"]) as stored:
            values = np.rint(low + np.asarray(stored, np.float32) / 255 * (high - low)).astype(np.int16)
        labels = structures(values, spacing)
        if not (labels == AIR).any():
            continue
        name = f"{row['path'].rpartition('.')[0].replace('/', '_')}.nii.gz"
        place = np.diag([-spacing, -spacing, THICKNESS, 1])  # columns go to the left, rows to the back
        for folder, image, empty in (("imagesTr", values, -1000), ("labelsTr", labels, 0)):
            beyond = np.full_like(image.T, empty)
            volume = np.stack([beyond, image.T, beyond], axis=2)
            nibabel.save(nibabel.Nifti1Image(volume, place), options.out / folder / name)
        rows.append([f"imagesTr/{name}", *(row[column] for column in COLUMNS[1:])])
        if row["split"] == "test":
            held_out.add(row["patient"])
    with (options.out / "index.csv").open("w", encoding="utf-8", newline="") as index:
        csv.writer(index).writerows([COLUMNS, *rows])
    (options.out / "masks.yaml").write_text(MASKS, encoding="utf-8")
    held = " ".join(f"--holdout {shlex.quote(patient)}" for patient in sorted(held_out))
    out = shlex.quote(str(options.out))
    print(f"medvar prepare {out} slices --masks {out}/masks.yaml --plane axial --size 128 --patient-ids public {held}")


def structures(hu: npt.NDArray[np.int16], spacing: float) -> npt.NDArray[np.uint8]:
    """The structures of a slice ``(H, W)`` in HU with pixels of ``spacing`` mm; empty without a body."""
    body = _largest(ndimage.binary_fill_holes(ndimage.binary_opening(hu > -400, iterations=2)))
    body = ndimage.binary_erosion(body, iterations=2)
    air = ndimage.binary_closing(ndimage.binary_opening(body & (hu < -500)), iterations=2) & body
    air = ndimage.binary_fill_holes(_without_specks(air, 400 / spacing**2))
    dense = ndimage.binary_fill_holes(ndimage.binary_closing(body & (hu > 180)))
    dense = _without_specks(dense, 60 / spacing**2) & ~air
    return (AIR * air + DENSE * dense).astype(np.uint8)


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    regions, count = ndimage.label(mask)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    return regions == 1 + np.argmax(sizes[1:]) if count else mask


def _without_specks(mask: npt.NDArray[np.bool_], pixels: float) -> npt.NDArray[np.bool_]:
    """Without connected regions of fewer than ``pixels``."""
    regions, _ = ndimage.label(mask)
    large = np.bincount(regions.ravel()) > pixels
    large[0] = False
    return large[regions]


if __name__ == "__main__":
    main()
