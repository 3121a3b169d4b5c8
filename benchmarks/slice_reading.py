"""Do time and memory stay flat when the slices become ten times as many, and does a batch cost what its bytes cost?

    python benchmarks/slice_reading.py [--size 32] [--slices 44000 440000] [--folder /tmp]

Writes that many slices of invented patients, 8,325 in 440,000, under 26 labels of data set × modality, to a temporary
folder, and does with them what training and preparation do, each in a fresh process. Own memory is the most that the
process had for itself beyond its imports; pages of mapped files, which the system takes back when it needs them, are
not in it, but in the peak of all its memory beside it. The bound of a batch is to copy the same slices out of NumPy
memory maps that are open already, and to make the same floats of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import ShardWriter, append, resplit, verify
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.split import SplitRule, split_patients
from medvar_engine.train.batches import BalancedSampler
from medvar_engine.train.config_sections import DataSettings
from medvar_engine.value_range import decode

PATIENTS, OF = 8_325, 440_000
BATCH, BATCHES = 64, 200
REGIONS = ("abdomen", "brain", "chest", "heart", "prostate", "spine")
LABELS = [(f"data-set-{i:02}", "CT" if i % 2 else "MR", REGIONS[i % 6]) for i in range(26)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="pixels a side (default 32)")
    parser.add_argument("--slices", type=int, nargs="+", default=[44_000, 440_000], help="how many slices")
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary folder goes")
    options = parser.parse_args()
    stages = (write, open_dataset, draw_epoch, split, append_some, check, read_batches)
    for slices in options.slices:
        print(f"{slices:,} slices of {options.size}×{options.size}", flush=True)
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            for stage in stages:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    figures = pool.apply(measured, (stage, Path(name) / "slices", slices, options.size))
                print(f"  {stage.__name__.replace('_', ' '):<14}{figures}", flush=True)


def measured(stage: Callable[[Path, int, int], str], folder: Path, slices: int, size: int) -> str:
    """Run a stage; gives its time and memory, and what else it says."""
    pa.array([0])  # with its first array PyArrow imports what else it needs
    with own_memory() as samples:
        begin = time.perf_counter()
        said = stage(folder, slices, size)
        taken = time.perf_counter() - begin
    most = (max(samples) - samples[0]) / 1024
    return f"{taken:8.2f} s  own memory {most:5.0f} MiB, peak {status('VmHWM') / 1024:5.0f} MiB  {said}"


def write(folder: Path, slices: int, size: int) -> str:
    """As preparation does, patient by patient."""
    patients = round(slices * PATIENTS / OF)
    write_patients(folder, [f"patient-{number:05}" for number in range(patients)], slices, size)
    return (
        f"{folder_bytes(folder) / 1e6:.0f} MB, of which table {(folder / 'slices.arrow').stat().st_size / 1e6:.0f} MB"
    )


def open_dataset(folder: Path, slices: int, size: int) -> str:
    """As training and each of its workers do."""
    return f"{len(SliceDataset(folder, 'train')):,} slices to train on"


def draw_epoch(folder: Path, slices: int, size: int) -> str:
    """Order of a whole epoch, rare kinds more often."""
    dataset = SliceDataset(folder, "train")
    begin = time.perf_counter()
    BalancedSampler(dataset, DataSettings()).draw(len(dataset), np.random.default_rng(0))
    return f"the draw itself {time.perf_counter() - begin:.2f} s"


def split(folder: Path, slices: int, size: int) -> str:
    """By patient, stratified by modality, region and data set."""
    manifest = resplit(folder, SplitRule(0.1, 1, strata=("modality", "region", "dataset")))
    return f"{list(manifest.split.values()).count('test')} of {len(manifest.split):,} patients tested"


def append_some(folder: Path, slices: int, size: int) -> str:
    """A hundredth more."""
    more = folder.with_name("more")
    write_patients(
        more, [f"new-{number:05}" for number in range(round(slices * PATIENTS / OF / 100))], slices // 100, size
    )
    begin = time.perf_counter()
    manifest = append(folder, more)
    return f"the append itself {time.perf_counter() - begin:.2f} s, now {manifest.slices:,}"


def check(folder: Path, slices: int, size: int) -> str:
    """Every hash."""
    begin = time.perf_counter()
    verify(folder)
    return f"{folder_bytes(folder) / 1e6 / (time.perf_counter() - begin):.0f} MB/s"


def read_batches(folder: Path, slices: int, size: int) -> str:
    """Random batches against NumPy, in turns; the first reading of a slice is as often ours as NumPy's."""
    dataset = SliceDataset(folder, "train")
    maps = [np.load(folder / shard["file"], mmap_mode="r") for shard in dataset.manifest.shards]
    table = dataset.columns("shard", "row")
    places = list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))

    def numpy_batch(chosen: np.ndarray) -> np.ndarray:
        return decode(np.stack([maps[shard][row] for shard, row in (places[i] for i in chosen)])[:, None])

    generator = np.random.default_rng(0)
    readers = (dataset.batch, numpy_batch)
    taken: dict[object, list[float]] = {read: [] for read in readers}
    for number in range(BATCHES):
        chosen = generator.integers(len(dataset), size=BATCH)
        for read in readers[:: 1 if number % 2 else -1]:
            begin = time.perf_counter()
            read(chosen)
            taken[read].append(time.perf_counter() - begin)
        assert np.array_equal(dataset.batch(chosen), numpy_batch(chosen))
    ours, bound = (1e3 * float(np.mean(taken[read])) for read in readers)
    return f"a batch of {BATCH} {ours:.3f} ms, NumPy {bound:.3f} ms: ratio {ours / bound:.2f}"


def write_patients(folder: Path, patients: list[str], slices: int, size: int) -> None:
    """Patients of as many slices each as comes out; pixels are noise that repeats, what is said of them is not."""
    noise = np.random.default_rng(0).integers(0, 65536, (slices // len(patients) + 1, size, size)).astype(np.uint16)
    edges = np.linspace(0, slices, len(patients) + 1).astype(int)
    with ShardWriter(folder, size) as writer:
        for number, patient in enumerate(patients):
            count = int(edges[number + 1] - edges[number])
            writer.add(noise[:count] + np.uint16(hash(patient) % 65536), facts_of(patient, number, count))
        chosen, remarks = split_patients(writer.strata)
        writer.finish(chosen, recipe={"size": size} | SplitRule().to_dict(), remarks=remarks)


def facts_of(patient: str, number: int, count: int) -> list[SliceFacts]:
    """A volume in three planes."""
    dataset, modality, region = LABELS[number % len(LABELS)]
    return [
        SliceFacts(
            patient=patient,
            modality=modality,
            region=region,
            plane=("axial", "coronal", "sagittal")[i % 3],
            dataset=dataset,
            contrast=None,
            spacing_mm=0.5 + number % 100 / 100,
            low=-1000.0,
            high=400.0,
            unit="HU" if modality == "CT" else "arbitrary",
            position_mm=float(i),
            series=f"{dataset}/{patient}/scan.nii.gz",
            source=dataset,
            licence="CC BY 4.0",
            fingerprint=(number * 1000 + i).to_bytes(32),
        )
        for i in range(count)
    ]


def folder_bytes(folder: Path) -> int:
    """Of all files."""
    return sum(path.stat().st_size for path in folder.iterdir())


@contextmanager
def own_memory() -> Iterator[list[int]]:
    """Memory that is this process's alone, in KiB, looked at every 5 ms."""
    samples = [status("RssAnon")]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            samples.append(status("RssAnon"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


def status(name: str) -> int:
    """A figure that Linux gives of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
