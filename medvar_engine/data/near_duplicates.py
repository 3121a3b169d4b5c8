"""Near-duplicate slices: within a series, between patients, and between training and test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.duplicates.hamming import near_pairs
from medvar_engine.data.duplicates.same_image import NEAR_BITS, distinctive, show_same_image
from medvar_engine.data.harmonise.slicing import SliceRules
from medvar_engine.data.shards.slice_table import fingerprints, names, numbers
from medvar_engine.data.shards.tally import distinct_rows
from medvar_engine.types import IntArray
from medvar_engine.value_range import CodeArray

MOST_PAIRS = 20_000
"""Largest number of pairs of each kind; the result records whether there are more."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two slices, by their positions in the dataset, and the number of bits in which their fingerprints differ."""

    first: int
    second: int
    bits: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Near-duplicates in a dataset. ``complete`` is False when there are more than were examined.

    ``leaks`` have one slice in training and one in test; ``patients`` are slices of two names on the same side, which
    may be the same patient; ``series`` are within one series and plane. ``plain`` slices have too little content to be
    compared.
    """

    leaks: tuple[Pair, ...]
    patients: tuple[Pair, ...]
    series: tuple[Pair, ...]
    plain: int
    complete: bool


def find_duplicates(dataset: SliceDataset, *, most: int = MOST_PAIRS) -> Duplicates:
    """Near-duplicates among the slices of a dataset, which should hold both splits.

    Candidates are pairs with fingerprints that differ in at most `NEAR_BITS` bits; their pixels decide. Slices of two
    patients must `show_same_image`; those of one series must differ less than the limits of `SliceRules` for phases of
    a cine. A slice that is shifted, rotated, cropped or noisy is not found; a series is found if one of its slices is.

    Memory grows with the table by about a kilobyte per slice, not with the images or the pairs.
    """
    strings = fingerprints(dataset.columns("fingerprint"))
    distinct = distinctive(strings)
    columns = dataset.columns("patient", "series", "plane")
    patients = numbers(columns, "patient")
    _, series = distinct_rows(columns, columns.column_names)
    tested = _is_tested(dataset)
    rules = SliceRules()
    kinds: dict[str, Callable[[IntArray, IntArray, IntArray], NDArray[np.bool_]]] = {
        "leaks": lambda first, second, _: tested[first] != tested[second],
        "patients": lambda first, second, _: (patients[first] != patients[second]) & (tested[first] == tested[second]),
        "series": lambda first, second, bits: (series[first] == series[second]) & (bits < rules.duplicate_bits),
    }
    found = {kind: _Taken(most) for kind in kinds}
    for first, second, bits in near_pairs(strings[distinct], NEAR_BITS):
        first, second = distinct[first], distinct[second]
        for kind, belongs in kinds.items():
            chosen = belongs(first, second, bits)
            found[kind].take(first[chosen], second[chosen], bits[chosen])
        if all(taken.more for taken in found.values()):
            break
    return Duplicates(
        leaks=_confirmed(dataset, found["leaks"], show_same_image),
        patients=_confirmed(dataset, found["patients"], show_same_image),
        series=_confirmed(dataset, found["series"], lambda a, b: _difference(a, b) < rules.duplicate_difference),
        plain=len(strings) - len(distinct),
        complete=not any(taken.more for taken in found.values()),
    )


def distinct(
    codes: CodeArray, fingerprints: Sequence[bytes], planes: Sequence[str | None], *, bits: int, difference: float
) -> list[int]:
    """Indices of the slices of one series without near-duplicates of earlier slices.

    ``codes`` (N, H, W) are the slices with their fingerprints (`medvar_engine.data.duplicates.fingerprint`) and planes.
    Two slices of a plane are near-duplicates when fewer than ``bits`` bits of their fingerprints differ and their mean
    absolute difference is below ``difference``, a fraction of the whole range. The fingerprint alone is not sufficient,
    because it does not depend on brightness.
    """
    hashes = np.frombuffer(b"".join(fingerprints), dtype=np.uint64).reshape(len(fingerprints), -1)
    kept = np.zeros(len(planes), dtype=bool)
    for plane in set(planes):
        members = np.flatnonzero([one == plane for one in planes])
        words = hashes[members]
        for number, index in enumerate(members):
            distances = np.bitwise_count(words[:number] ^ words[number]).sum(axis=1)
            alike = members[:number][distances < bits]
            kept[index] = not any(
                _difference(codes[index], codes[other]) < difference for other in alike if kept[other]
            )
    return [int(index) for index in np.flatnonzero(kept)]


class _Taken:
    """The first pairs of one kind, up to a limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.pairs: list[Pair] = []
        self.more = False

    def take(self, first: IntArray, second: IntArray, bits: IntArray) -> None:
        room = self.most - len(self.pairs)
        self.more |= len(first) > room
        self.pairs += [Pair(*map(int, pair)) for pair in zip(first[:room], second[:room], bits[:room], strict=True)]


def _confirmed(dataset: SliceDataset, taken: _Taken, same: Callable[[CodeArray, CodeArray], bool]) -> tuple[Pair, ...]:
    """The pairs with similar pixels, too; the most similar first."""
    pairs = sorted(taken.pairs, key=lambda pair: (pair.first, pair.second))  # in the order on the disk
    kept = [pair for pair in pairs if same(dataset.codes(pair.first), dataset.codes(pair.second))]
    return tuple(sorted(kept, key=lambda pair: pair.bits))


def _difference(first: CodeArray, second: CodeArray) -> float:
    """Mean absolute difference as a fraction of the whole range."""
    return float(np.abs(first.astype(np.float32) - second.astype(np.float32)).mean()) / 65535


def _is_tested(dataset: SliceDataset) -> NDArray[np.bool_]:
    """Whether the patient of each slice is held out."""
    column = dataset.columns("patient")
    tested = [dataset.manifest.split.get(name) == "test" for name in names(column, "patient")]
    return np.asarray(tested, dtype=bool)[numbers(column, "patient")]
