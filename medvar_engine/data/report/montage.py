"""Montages: a few slices of every label, and near-duplicates side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.near_duplicates import Pair
from medvar_engine.data.report.choose_slices import groups, patients, spread
from medvar_engine.data.shards import SliceRow
from medvar_engine.page.elements import Markup, element, jpeg

TILES = 20
_SIDE = 96
_PAIR_SIDE = 128


def montages(dataset: SliceDataset) -> Iterator[tuple[str, Markup]]:
    """The name of each label with slices of as many patients as possible."""
    everyone = patients(dataset)
    for name, positions in groups(dataset, ("region", "modality", "plane")):
        chosen = spread(positions, everyone[positions], TILES)
        tiles = (tile(dataset, int(position), _SIDE) for position in chosen)
        yield " ".join(filter(None, name)), element("div", *tiles, class_="tiles")


def pairs(dataset: SliceDataset, found: Iterable[Pair]) -> Markup:
    """Near-duplicates, each pair with a description of its slices."""
    figures = []
    for pair in found:
        sides = [tile(dataset, position, _PAIR_SIDE) for position in (pair.first, pair.second)]
        names = [_patient_of(dataset.rows[position]) for position in (pair.first, pair.second)]
        caption = element("figcaption", names[0], element("br"), names[1])
        figures.append(element("figure", *sides, caption))
    return element("div", *figures, class_="pairs")


def tile(dataset: SliceDataset, position: int, side: int) -> Markup:
    """One slice with a description as its tooltip."""
    row = dataset.rows[position]
    place = "" if row.position_mm is None else f", {row.position_mm:g} mm"
    grey = (dataset.codes(position) >> 8).astype(np.uint8)
    return jpeg(grey, side, f"{_patient_of(row)}, series {row.series}{place}")


def _patient_of(row: SliceRow) -> str:
    return f"{row.patient} ({row.split})"
