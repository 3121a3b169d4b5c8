"""How fast do scans become slices, and how much of that is reading them?

    python benchmarks/preparation.py [SCANS] [--size 128] [--axial] [--repeats 3]

``SCANS`` is a folder of real scans with an index.csv. Without it eight scans are invented: CT and MR, as DICOM series
and as compressed NIfTI. Every repeat runs, one after the other in processes of their own: *decode*, the bound, the same
series found, and the same images read by pydicom, nibabel and SimpleITK and nothing else;
*medvar* with one and with two workers; and *MONAI*, its reader, orientation, intensity and resize transforms for the
same slices of the same planes, without table, hashes, duplicates or checks. MONAI is left out when it cannot be
imported; ``pip install --target PEER --no-deps monai``, and ``PYTHONPATH=PEER`` brings it.

Ratios are of CPU time (user and system, children too), which other work on the machine disturbs least; seconds are
medians, memory is the largest process' peak.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

Measured = dict[str, float]
Way = Callable[[Path, int, bool], int]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="?", help="folder of scans with index.csv")
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default 128)")
    parser.add_argument("--axial", action="store_true", help="axial slices only")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of which the median is given (default 3)")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(WAYS[options.only], options.scans, options.size, options.axial)))
        return
    with tempfile.TemporaryDirectory() as folder:
        scans = options.scans or invent(Path(folder))
        found: dict[str, list[Measured]] = {}
        for _ in range(options.repeats):
            for way in WAYS:
                command = [sys.executable, __file__, str(scans), "--size", str(options.size), "--only", way]
                command += ["--axial"] * options.axial
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    found.setdefault(way, []).append(json.loads(done.stdout.splitlines()[-1]))
                elif "No module named 'monai'" not in done.stderr:
                    sys.exit(done.stderr)
    middle = {way: {name: median(one[name] for one in runs) for name in runs[0]} for way, runs in found.items()}
    print(f"{'':18}{'slices':>8}{'seconds':>9}{'CPU s':>8}{'slices/s':>10}{'peak MB':>9}")
    for way, one in middle.items():
        rate = one["slices"] / one["seconds"]
        print(f"{way:18}{one['slices']:8.0f}{one['seconds']:9.2f}{one['cpu']:8.2f}{rate:10.0f}{one['peak']:9.0f}")
    ours = middle["medvar"]
    decoded, made = (one["slices"] / one["cpu"] for one in (middle["decode"], ours))
    print(f"decoding gives {decoded:.0f} slices a CPU second, medvar {made:.0f}: {made / decoded:.2f} of that")
    print(f"decoding is {middle['decode']['cpu'] / ours['cpu']:.2f} of medvar's CPU time (goal: 0.7)")
    print(f"two workers are {ours['seconds'] / middle['medvar, 2 workers']['seconds']:.2f} times as fast as one")
    if "MONAI" in middle:
        peer = middle["MONAI"]
        print(f"a slice takes MONAI {peer['cpu'] / peer['slices'] / (ours['cpu'] / ours['slices']):.2f} times as long")
    else:
        print("MONAI cannot be imported: pip install --target PEER --no-deps monai, and PYTHONPATH=PEER")


def measure(way: Way, scans: Path, size: int, axial: bool) -> Measured:
    """Time, CPU time and peak memory of one way; imports are not part of it, so two other scans go first."""
    with tempfile.TemporaryDirectory() as folder:
        way(invent(Path(folder), pairs=1), size, axial)
    cpu, wall = cpu_seconds(), time.perf_counter()
    slices = way(scans, size, axial)
    wall = time.perf_counter() - wall
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"slices": slices, "seconds": wall, "cpu": cpu_seconds() - cpu, "peak": peak / 1024}


def cpu_seconds() -> float:
    """User and system time of this process and its finished children."""
    return sum(os.times()[:4])


def decode(scans: Path, size: int, axial: bool) -> int:
    """Find the series as `prepare` does, and read the pixels of all images that it reads, in their stored type."""
    import nibabel
    import SimpleITK as sitk
    from pydicom.pixels import pixel_array

    from medvar_engine.data.read.scans import find_series

    slices = 0
    for series in find_series(scans)[0]:
        if series.scan is not None:
            for number in series.scan.chosen(8, "b0"):
                stack = series.scan.stacks[number]
                for frame in stack.frames:
                    path, of = series.paths[frame.file], series.scan.files[frame.file]
                    index = frame.index if of.frames > 1 and not stack.cine else None
                    slices += int(np.prod(pixel_array(path, index=index).shape[:-2]))
        elif series.path.name.endswith((".nii", ".nii.gz", ".hdr")):
            slices += np.asanyarray(nibabel.load(series.path).dataobj).shape[2]
        else:
            slices += sitk.GetArrayFromImage(sitk.ReadImage(str(series.path))).shape[0]
    return slices


def medvar(scans: Path, size: int, axial: bool, workers: int = 1) -> int:
    """All of `medvar prepare`."""
    from medvar_engine.data.harmonise.slice_recipe import Recipe
    from medvar_engine.data.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.of(size=size, planes=["axial"] if axial else None)
        return prepare(scans, Path(folder) / "out", recipe, workers=workers).slices


def monai(scans: Path, size: int, axial: bool) -> int:
    """The same scans, planes and slices with MONAI's reader and transforms, as uint16."""
    from monai.transforms import (
        Compose,
        LoadImage,
        Orientation,
        Resize,
        ResizeWithPadOrCrop,
        ScaleIntensityRange,
        ScaleIntensityRangePercentiles,
    )

    from medvar_engine.data.identity.series_identity import identify
    from medvar_engine.data.read.scans import find_series
    from medvar_engine.data.recipe.index_file import read_index
    from medvar_engine.errors import MedvarError

    index = read_index(scans)
    load = LoadImage(image_only=True, ensure_channel_first=True)
    turn = Orientation(axcodes="RAS", labels=None)
    windows = {
        "CT": ScaleIntensityRange(-160, 240, -1, 1, clip=True),
        "MR": ScaleIntensityRangePercentiles(0.5, 99.5, -1, 1, clip=True),
    }
    slices = 0
    for series in find_series(scans)[0]:
        try:
            identity = identify(series, index, scans)
        except MedvarError:
            continue
        if series.archive is not None or (len(series.paths) == 1 and series.is_dicom):
            continue  # MONAI reads neither archives nor enhanced multi-frame files as volumes
        try:
            image = turn(load(str(series.path.parent if series.is_dicom else series.path)))
        except Exception:  # readers raise what they like, for one where a folder holds more than the series
            continue
        spacing = image.pixdim.numpy()
        scaled = windows[identity.modality](image)[0]
        tissue = (image[0] > (-300 if identity.modality == "CT" else float(image.max()) * 0.05)).numpy()
        for axis in (2,) if axial else range(3):
            others = [other for other in range(3) if other != axis]
            pair = spacing[others]
            if pair.max() > 2.5 * pair.min() or min(tissue.shape[other] for other in others) < 40:
                continue
            fractions = tissue.mean(axis=tuple(others))
            sides = np.asarray([tissue.shape[other] for other in others]) * pair
            fit = Compose(
                [
                    Resize(np.rint(sides * size / sides.max()).astype(int), mode="bilinear", anti_aliasing=True),
                    ResizeWithPadOrCrop((size, size), mode="constant", constant_values=-1),
                ]
            )
            for place in np.flatnonzero(fractions >= max(0.08, 0.25 * fractions.max())):
                codes = (fit(scaled.select(axis, int(place))[None]).numpy() + 1) * 32767.5
                codes.round().astype(np.uint16)
                slices += 1
    return slices


def invent(folder: Path, pairs: int = 4) -> Path:
    """As many CT series as DICOM as MR as compressed NIfTI, of a head's size, with an index."""
    import nibabel
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    scans, rows = folder / "scans", ["path,patient,modality,region"]
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in (192, 192, 96)), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.9
    for number in range(pairs):
        texture = np.random.default_rng(number).normal(0, 30, inside.shape)
        (scans / f"ct{number}").mkdir(parents=True)
        hounsfield = np.where(inside, 40 + texture, -1000).astype(np.int16)
        study = generate_uid()
        for z in range(inside.shape[2]):
            one = Dataset()
            one.file_meta = FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
            one.SeriesInstanceUID = one.StudyInstanceUID = one.FrameOfReferenceUID = study
            one.PatientID, one.Modality, one.ImageType = f"ct{number}", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
            one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
            one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
            one.Rows, one.Columns = inside.shape[1], inside.shape[0]
            one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 1.5 * z], [1, 0, 0, 0, 1, 0]
            one.PixelSpacing, one.InstanceNumber = [1, 1], z + 1
            one.RescaleSlope, one.RescaleIntercept = 1, 0
            one.PixelData = np.ascontiguousarray(hounsfield[..., z].T).tobytes()
            one.save_as(scans / f"ct{number}" / f"{z:03d}.dcm", enforce_file_format=True)
        signal = np.where(inside, 400 + 4 * texture, np.abs(texture / 6)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(signal, np.diag([1, 1, 1.5, 1.0])), scans / f"mr{number}.nii.gz")
        rows += [f"ct{number},ct{number},CT,abdomen", f"mr{number}.nii.gz,mr{number},MR,brain"]
    (scans / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return scans


WAYS: dict[str, Way] = {
    "decode": decode,
    "medvar": medvar,
    "medvar, 2 workers": lambda scans, size, axial: medvar(scans, size, axial, 2),
    "MONAI": monai,
}


if __name__ == "__main__":
    main()
