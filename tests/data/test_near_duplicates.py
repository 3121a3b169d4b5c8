"""Near-duplicates: every near pair is found, copies of people across the split are told, blank slices are not."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.duplicates.fingerprint import fingerprint
from medvar_engine.data.duplicates.hamming import near_pairs
from medvar_engine.data.near_duplicates import Pair, find_duplicates
from medvar_engine.data.shards import ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import encode


def brute_force(strings: np.ndarray, bits: int) -> dict[tuple[int, int], int]:
    pairs = itertools.combinations(range(len(strings)), 2)
    distances = {(i, j): int(np.bitwise_count(strings[i] ^ strings[j]).sum()) for i, j in pairs}
    return {pair: distance for pair, distance in distances.items() if distance <= bits}


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_every_near_pair_comes_once(count: int, length: int, bits: int, seed: int) -> None:
    """Breaks for leaks: a pair that is missed is a test image that was trained on."""
    generator = np.random.default_rng(seed)
    few = generator.integers(0, 256, (max(1, count // 4), length), dtype=np.uint8)
    flips = np.packbits(generator.random((count, length * 8)) < generator.choice([0, 0.05, 0.3]), axis=1)
    strings = few[generator.integers(0, len(few), count)] ^ flips
    if bits >= length * 8:
        with pytest.raises(MedvarError, match="all differ"):
            list(near_pairs(strings, bits))
        return
    found = [
        (int(i), int(j), int(distance))
        for batch in near_pairs(strings, bits)
        for i, j, distance in zip(*batch, strict=True)
    ]
    assert len(found) == len({(i, j) for i, j, _ in found})
    assert {(i, j): distance for i, j, distance in found} == brute_force(strings, bits)


def test_the_search_among_many_equal_strings_can_be_stopped() -> None:
    """Breaks for a folder with the same slice ten thousand times: fifty million pairs are not waited for."""
    first, second, distance = next(near_pairs(np.full((10_000, 32), 7, np.uint8), 8))
    assert len(first) == 9_999
    assert (first < second).all()
    assert not distance.any()


def test_wrong_strings_are_refused() -> None:
    """Breaks for callers: shapes that do not fit are told, not guessed at."""
    for strings, bits in [
        (np.zeros((2, 3), np.int64), 1),
        (np.zeros(3, np.uint8), 1),
        (np.zeros((2, 3), np.uint8), -1),
    ]:
        with pytest.raises(MedvarError):
            next(near_pairs(strings, bits))


def random_image(seed: int) -> np.ndarray:
    """A smooth image (64, 64) in [-1, 1], another one for each seed."""
    noise = np.random.default_rng(seed).normal(size=(64, 64))
    smooth = ndimage.gaussian_filter(noise, 5)
    return np.clip(smooth / np.abs(smooth).max(), -1, 1).astype(np.float32)


def prepared(
    folder: Path, slices: list[tuple[str, str, np.ndarray]], tested: set[str], fingerprints: list[bytes] | None = None
) -> SliceDataset:
    """A dataset of (patient, series, image); with their own fingerprints, unless others are given."""
    prints = fingerprints or [fingerprint(image) for _, _, image in slices]
    about = ("axial", "set", None, 1.0, 0.0, 100.0, "arbitrary", None)
    with ShardWriter(folder, 64) as writer:
        for (patient, series, image), one in zip(slices, prints, strict=True):
            facts = SliceFacts(patient, "MR", "brain", *about, series, "a source", "MIT", one)
            writer.add(encode(image)[np.newaxis], [facts])
        writer.finish({patient: "test" if patient in tested else "train" for patient, _, _ in slices})
    return SliceDataset(folder)


def pairs(found: tuple[Pair, ...]) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in found}


def test_duplicates_are_found_and_classified(tmp_path: Path) -> None:
    """Breaks for evaluation: the same person under two names must be seen, also in another window."""
    other_window = np.clip(random_image(1) * 0.7 - 0.1, -1, 1)
    dataset = prepared(
        tmp_path / "a",
        [
            ("ann", "1", random_image(1)),  # 0
            ("ann", "1", random_image(2)),  # 1
            ("bob", "2", random_image(3)),  # 2
            ("eve", "3", other_window),  # 3, ann again, tested
            ("joe", "4", random_image(3)),  # 4, bob again
            ("joe", "4", random_image(5)),  # 5
            ("joe", "4", random_image(5)),  # 6, twice in a series
            ("joe", "5", random_image(5)),  # 7, and in another one, as two reconstructions may be
        ],
        {"eve"},
    )
    found = find_duplicates(dataset)
    assert pairs(found.leaks) == {(0, 3)}
    assert pairs(found.patients) == {(2, 4)}
    assert pairs(found.series) == {(5, 6)}
    assert found.complete
    assert found.plain == 0


def test_blank_slices_are_not_duplicates(tmp_path: Path) -> None:
    """Breaks for the ends of scans: black, gray and shaded slices of strangers are all alike, and no leak."""
    ramp = np.broadcast_to(np.linspace(-1, 1, 64, dtype=np.float32), (64, 64))
    dot = np.full((64, 64), -1, np.float32)
    dot[30:34, 30:34] = 1
    plain = [np.full((64, 64), -1, np.float32), np.zeros((64, 64), np.float32), ramp, dot]
    slices = [(f"p{number}", "1", image) for number, image in enumerate(plain * 3)]
    found = find_duplicates(prepared(tmp_path / "a", slices, {"p1", "p2", "p6"}))
    assert (found.leaks, found.patients, found.series) == ((), (), ())
    assert found.plain == len(slices)


def test_similar_fingerprints_alone_are_not_duplicates(tmp_path: Path) -> None:
    """Breaks for brains: two patients's slices may have near fingerprints; the pixels decide."""
    slices = [("ann", "1", random_image(1)), ("bob", "2", random_image(2)), ("joe", "3", random_image(1))]
    same = fingerprint(random_image(1))
    found = find_duplicates(prepared(tmp_path / "a", slices, {"bob"}, [same] * 3))
    assert found.leaks == ()
    assert pairs(found.patients) == {(0, 2)}


def test_incomplete_searches_are_reported(tmp_path: Path) -> None:
    """Breaks for a folder full of copies: the result says that it is not the whole."""
    slices = [(f"p{number}", "1", random_image(0)) for number in range(12)]
    dataset = prepared(tmp_path / "a", slices, {"p0", "p1"})
    few, all_of_them = find_duplicates(dataset, most=5), find_duplicates(dataset)
    assert (len(few.leaks), few.complete) == (5, False)
    assert (len(all_of_them.leaks), all_of_them.complete) == (2 * 10, True)
    assert len(all_of_them.patients) == 45 + 1
