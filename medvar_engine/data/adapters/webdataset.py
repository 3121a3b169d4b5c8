"""Exports prepared slices as tar files for WebDataset."""

from __future__ import annotations

import io
import tarfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from medvar_engine.data.adapters.samples import Progress, samples, write_about
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.storage import whole_folder

TAR_SLICES = 4096


def export_webdataset(
    folder: Path, out: Path, *, tar_slices: int = TAR_SLICES, progress: Progress | None = None
) -> list[Path]:
    """Write ``out/train-000000.tar``, …, ``out/test-000000.tar``, … and ``out/about.json``; returns the tar files.

    A sample is ``<number>.npy``, a uint16 array (H, W) in which 0…65535 stand for -1…1, and ``<number>.json``, its
    metadata. PNG is not used, because WebDataset's own decoders reduce 16 bits to 8. Raises `MedvarError` when
    ``out`` is not empty or cannot be written; then nothing is left there.
    """
    dataset = SliceDataset(Path(folder))
    with whole_folder(Path(out)) as partial:
        with ExitStack() as stack:
            written: dict[str, int] = {}
            tars: dict[str, tarfile.TarFile] = {}
            for sample in samples(dataset, progress):
                number = written.get(sample.split, 0)
                if number % tar_slices == 0:
                    if sample.split in tars:
                        tars[sample.split].close()
                    path = partial / f"{sample.split}-{number // tar_slices:06d}.tar"
                    tars[sample.split] = stack.enter_context(tarfile.open(path, "w"))
                _add(tars[sample.split], f"{sample.number:09d}.npy", _npy(sample.codes))
                _add(tars[sample.split], f"{sample.number:09d}.json", sample.facts.encode("utf-8"))
                written[sample.split] = number + 1
        write_about(partial, dataset.manifest)
        names = sorted(path.name for path in partial.glob("*.tar"))
    return [Path(out) / name for name in names]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)  # without owner and time, so that the same slices give the same file
    about.size = len(content)
    tar.addfile(about, io.BytesIO(content))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
