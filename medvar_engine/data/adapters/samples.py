"""The slices for an export to another format, in a reproducible random order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import Manifest, SliceRow
from medvar_engine.value_range import CodeArray

Progress = Callable[[str, int, int], None]
"""Called with a description of the work, the number of finished slices, and the number of all slices."""

_EVERY = 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """A slice (H, W) of uint16 codes, its number in the table, its split, and its facts as one JSON object."""

    number: int
    split: str
    codes: CodeArray
    facts: str


def samples(dataset: SliceDataset, progress: Progress | None) -> Iterator[Sample]:
    """All slices in random order, because readers of a stream can shuffle only nearby samples."""
    order = np.random.Generator(np.random.Philox(0)).permutation(len(dataset))
    for done, number in enumerate(order.tolist()):
        if progress is not None and done % _EVERY == 0:
            progress("writing", done, len(order))
        row = dataset.rows[number]
        yield Sample(number, row.split, dataset.codes(number), json.dumps(_plain(row), ensure_ascii=False))
    if progress is not None:
        progress("done", len(order), len(order))


def write_about(folder: Path, manifest: Manifest) -> None:
    """Write the information of the manifest, because licences must accompany the slices."""
    about = {name: value for name, value in asdict(manifest).items() if name not in ("shards", "table")}
    text = json.dumps(about, indent=1, ensure_ascii=False)
    (folder / "about.json").write_text(text, encoding="utf-8")


def _plain(row: SliceRow) -> dict[str, Any]:
    values = {name: value for name, value in asdict(row).items() if name not in ("shard", "row")}
    return values | {"fingerprint": row.fingerprint.hex()}
