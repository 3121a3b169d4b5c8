"""Exports prepared slices as chunks for LitData's ``StreamingDataset``."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.data.adapters.samples import Progress, samples, write_about
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.storage import whole_folder

CHUNK_BYTES = 64_000_000


def export_litdata(
    folder: Path, out: Path, *, chunk_bytes: int = CHUNK_BYTES, progress: Progress | None = None
) -> list[Path]:
    """Write the folders ``out/train`` and ``out/test``, and ``out/about.json``; returns the folders.

    A sample is ``{"image": uint16 array (H, W), "facts": JSON text}``, in which 0…65535 stand for -1…1. Raises
    `ImportError` without litdata, and `MedvarError` when ``out`` is not empty or cannot be written; then nothing is
    left there.
    """
    from litdata.streaming import Cache  # imports torch

    dataset = SliceDataset(Path(folder))
    with whole_folder(Path(out)) as partial:
        caches: dict[str, Cache] = {}
        written: dict[str, int] = {}
        for sample in samples(dataset, progress):
            if sample.split not in caches:
                caches[sample.split] = Cache(str(partial / sample.split), chunk_bytes=chunk_bytes)
            number = written.get(sample.split, 0)
            caches[sample.split][number] = {"image": sample.codes, "facts": sample.facts}
            written[sample.split] = number + 1
        for cache in caches.values():
            cache.done()
            cache.merge()
        write_about(partial, dataset.manifest)
    return [Path(out) / split for split in sorted(caches)]
