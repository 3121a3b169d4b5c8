"""Do the readers of scans withstand damaged files? Each changed file must be read or refused; all else is a bug.

    python benchmarks/fuzz_readers.py [--cases 20000] [--seconds 60] [--seed 0] [--scans FOLDER] [--keep FOLDER]

Seeds are small scans of every format and transfer syntax that can be written here, and with ``--scans`` the real ones
up to 8 MB. Each case changes a seed, and reads it in a process of its own with bounds on memory and time, in a folder
of its own; what lies in the temporary folder afterwards, or beside the case, counts as left. Printed are the counts of

    read      volumes came out
    refused   a reason came out, which names the file
    crashed   anything else: another error, a signal, more than 1 GiB of memory
    hung      no end within the time
    left      files left in the temporary folder, or written outside of the case's folder

and the exit status is 1 when one of the last three is not 0. ``--keep`` keeps the files of these. For Linux.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

from medvar_engine.data.read.scans import find_series
from medvar_engine.errors import MedvarError

OUTCOMES = ("read", "refused", "crashed", "hung", "left")
MEMORY_BYTES = 2**30  # of one case, in addition to what Python and the libraries take
ADDRESSES = 8 * 2**30  # beyond which nothing is given, so that a bug does not take the machine
CASE_SECONDS = 20.0
LARGEST_SEED = 8 * 2**20
NUMBERS = (b"\0\0\0\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"9999")
SYNTAXES = {
    "rle": "1.2.840.10008.1.2.5",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "j2k": "1.2.840.10008.1.2.4.90",
    "deflated": "1.2.840.10008.1.2.1.99",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg-lossless": "1.2.840.10008.1.2.4.70",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, help="how many changed files, instead of --seconds")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default 0)")
    parser.add_argument("--scans", type=Path, help="folder of real scans to change too")
    parser.add_argument("--keep", type=Path, help="folder for the files that were neither read nor refused")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        work = Path(name)
        seeds = work / "seeds"
        seeds.mkdir()
        if run(lambda: write_seeds(seeds), work / "log", seconds=120) != "read":
            sys.exit((work / "log").read_text())
        files = sorted(path for path in seeds.rglob("*") if path.is_file())
        warm_up([path for path in files if path.name.endswith((".dcm", ".nii", ".nii.gz"))])
        if options.scans is not None:
            files += real_files(options.scans)
        kinds: dict[str, list[Path]] = {}
        for path in files:
            kinds.setdefault(format_of(path), []).append(path)
        chance = random.Random(options.seed)
        end = time.monotonic() + options.seconds
        number = 0
        while number < options.cases if options.cases else time.monotonic() < end:
            number += 1
            seed = chance.choice(kinds[chance.choice(sorted(kinds))])
            outcome = one_case(work / "case", seed, changed(seed.read_bytes(), chance))
            counts.setdefault(format_of(seed), Counter())[outcome] += 1
            if outcome not in OUTCOMES[:2]:
                print(f"case {number}, {outcome}: {seed.name}\n{(work / 'log').read_text()[-1500:]}", flush=True)
                if options.keep is not None:
                    shutil.copytree(work / "case/given", options.keep / str(number), dirs_exist_ok=True)
    print(f"{'':<16}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    for kind, row in sorted(counts.items()):
        print(f"{kind:<16}" + "".join(f"{row[outcome]:>9}" for outcome in OUTCOMES))
    total = sum(counts.values(), Counter())
    print(f"{'all':<16}" + "".join(f"{total[outcome]:>9}" for outcome in OUTCOMES))
    sys.exit(int(any(total[outcome] for outcome in OUTCOMES[2:])))


def warm_up(files: list[Path]) -> None:
    """Import what is imported at first use, here and not in each case. Not ITK: its threads do not survive a fork."""
    for path in files:
        if path.parent.name != "series":
            for one in find_series(path)[0]:
                list(one.load())


def one_case(folder: Path, seed: Path, content: bytes) -> str:
    """Read one changed file, and say what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    given, temporary = folder / "given", folder / "temporary"
    given.mkdir(parents=True)
    temporary.mkdir()
    path = given / seed.name
    path.write_bytes(content)
    if seed.name.lower().endswith(".hdr"):
        shutil.copy(seed.with_suffix(".img"), given)
    elif seed.name.lower().endswith((".mhd", ".nhdr")):
        shutil.copy(next(seed.parent.glob(f"{seed.stem}.*raw*")), given)
    elif seed.parent.name == "series":
        for other in seed.parent.iterdir():
            if other != seed:
                shutil.copy(other, given)
    before = sorted(given.iterdir())

    def read() -> None:
        tempfile.tempdir = str(temporary)
        found, refusals = find_series(given)
        for one in found:
            for volume in one.load():
                assert np.isfinite(volume.array).all()
        for refusal in refusals:
            raise MedvarError(str(refusal))

    outcome = run(read, folder.parent / "log", seconds=CASE_SECONDS)
    beside = sorted(folder.iterdir()) != [given, temporary] or sorted(given.iterdir()) != before
    return "left" if outcome != "hung" and (beside or any(temporary.iterdir())) else outcome


def run(task: Callable[[], None], log: Path, *, seconds: float) -> str:
    """Run ``task`` in a process of its own, with bounds, and say how it ended. Its words go to ``log``."""
    child = os.fork()
    if child == 0:
        words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(words, 1)
        os.dup2(words, 2)
        status = 2
        try:
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is taken now
            before = memory("VmRSS")
            try:
                task()
                status = 0
            except MedvarError:
                status = 1
            if (taken := memory("VmHWM") - before) > MEMORY_BYTES:
                print(f"{taken / 2**20:.0f} MiB of memory were taken", flush=True)
                status = 2
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                log.write_text(f"{log.read_text(errors='replace')}\nended by {signal.Signals(-code).name}")
            return {0: "read", 1: "refused"}.get(code, "crashed")
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def memory(name: str) -> int:
    """Bytes of resident memory of this process: now (``VmRSS``), or at most (``VmHWM``). On Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def changed(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bytes, bits or numbers changed, a piece cut, repeated or lost, or its end."""
    result = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not result:
            break
        # Headers lie in front, those of zip at the end; most changes of voxels change nothing.
        reach = chance.choice((200, 2000, len(result)))
        at = min(chance.randrange(min(reach, len(result))), len(result) - 1)
        if chance.random() < 0.2:
            at = len(result) - 1 - at
        match chance.randrange(8):
            case 0:
                result[at] ^= 1 << chance.randrange(8)
            case 1 | 2:
                result[at] = chance.randrange(256)
            case 3:
                value = chance.choice(
                    (b"\0\0\0\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"9999")
                )
                result[at : at + 4] = value
            case 4:
                del result[at : at + chance.choice((1, 2, 8, 100))]
            case 5:
                result[at:at] = chance.randbytes(chance.choice((1, 2, 8, 100)))
            case 6:
                result[at:at] = result[at : at + chance.choice((4, 16, 200))]
            case 7:
                if chance.random() < 0.3:
                    del result[at:]
    return bytes(result)


def format_of(path: Path) -> str:
    """Which row of the table a seed counts in."""
    name = path.name.lower()
    for suffix in (".nii.gz", ".tar.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip"):
        if name.endswith(suffix):
            return suffix[1:]
    return next((f"dicom {syntax}" for syntax in SYNTAXES if path.stem == syntax), "dicom")


def real_files(folder: Path) -> list[Path]:
    """Real scans that are small enough: of a folder of slices, three files."""
    chosen: Counter[Path] = Counter()
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".csv" and path.stat().st_size <= LARGEST_SEED:
            chosen[path.parent] += 1
            if chosen[path.parent] <= 3:
                files.append(path)
    return files


def write_seeds(folder: Path) -> None:
    """A small good file of each format."""
    array = np.random.default_rng(0).integers(0, 4000, (4, 33, 34)).astype(np.int16)
    affine = np.diag([1.5, 1.25, 2, 1])
    for name in ("one.nii", "one.nii.gz"):
        nib.save(nib.Nifti1Image(array, affine), folder / name)
    nib.save(nib.Nifti2Image(array.astype(np.float64), affine), folder / "two.nii")
    nib.save(nib.Nifti1Image(np.stack([array] * 3, axis=-1), affine), folder / "four.nii.gz")
    nib.save(nib.Nifti1Pair(array, affine), folder / "pair.hdr")
    image = sitk.GetImageFromArray(array)
    for name, packed in (("a.nrrd", True), ("b.nrrd", False), ("a.mha", True), ("b.mha", False)):
        sitk.WriteImage(image, str(folder / name), packed)
    for name, packed in (("c.nhdr", False), ("d.nhdr", True), ("e.mhd", False), ("f.mhd", True)):
        sitk.WriteImage(image, str(folder / name), packed)
    enhanced(array).save_as(folder / "plain.dcm", enforce_file_format=True)
    for name, syntax in SYNTAXES.items():
        eight = name == "jpeg"
        dataset = enhanced(array // 16 if eight else array, bits=8 if eight else 16)
        if name == "deflated":
            dataset.file_meta.TransferSyntaxUID = syntax
        elif name.startswith("jpeg") and name != "jpegls":
            dataset = by_gdcm(dataset, syntax, folder)
            if dataset is None:
                continue
        else:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    (folder / "series").mkdir()
    for number, frame in enumerate(array):
        dataset = one_frame(frame)
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.RescaleSlope, dataset.RescaleIntercept = [1, 1], 1, -1024
        dataset.save_as(folder / f"series/{number}.dcm", enforce_file_format=True)
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted((folder / "series").iterdir()):
            zipped.write(path, f"series/{path.name}")
        zipped.write(folder / "one.nii", "one.nii")
    with tarfile.open(folder / "study.tar.gz", "w:gz") as tar:
        tar.add(folder / "series", "series")
        tar.add(folder / "one.nii", "one.nii")


def one_frame(pixels: np.ndarray, bits: int = 16) -> FileDataset:
    """A CT or, of several frames, an enhanced MR."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage if pixels.ndim == 2 else EnhancedMRImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2.3"
    dataset.PatientID, dataset.Modality = "someone", "CT" if pixels.ndim == 2 else "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.PixelData = pixels.astype(f"u{bits // 8}").tobytes()
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    return dataset


def enhanced(pixels: np.ndarray, bits: int = 16) -> FileDataset:
    """All frames in one file, with functional groups."""
    dataset = one_frame(pixels, bits)
    dataset.NumberOfFrames = len(pixels)
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number in range(len(pixels)):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 2 * number]
        group.PlanePositionSequence = [position]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset


def by_gdcm(dataset: FileDataset, syntax: str, folder: Path) -> FileDataset | None:
    """Packed by GDCM, which knows more syntaxes; None where it is not installed."""
    try:
        import gdcm
    except ImportError:
        return None
    raw, packed = folder / "raw.tmp", folder / "packed.tmp"
    dataset.save_as(raw, enforce_file_format=True)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(raw))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()
    result = pydicom.dcmread(packed, defer_size=None)
    _ = result.PixelData
    raw.unlink()
    packed.unlink()
    return result


if __name__ == "__main__":
    main()
