"""Finds all pairs of bit strings that differ in few bits, without comparing all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medvar_engine.errors import MedvarError
from medvar_engine.types import IntArray

_KEY_BITS = 64
_BLOCK = 1 << 16


def near_pairs(strings: NDArray[np.uint8], bits: int) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Pairs ``first < second`` of rows of ``strings`` (N, bytes) that differ in at most ``bits`` bits, and in how many.

    Each pair is yielded once, in batches of at most N, in an order that depends on the strings only. Memory grows with
    N, not with the number of pairs, and the iterator can be stopped at any time.

    Two such strings, divided into ``bits + 1`` pieces, agree in at least one piece, so only strings that agree in a
    piece are compared. Neighbouring bits belong to different pieces, because neighbours are correlated in images.

    Source: multi-index hashing, Norouzi, Punjani and Fleet, "Fast exact search in Hamming space with multi-index
    hashing" (IEEE TPAMI 2014).
    """
    if strings.ndim != 2 or strings.dtype != np.uint8:
        raise MedvarError(f"Bit strings must be uint8 of shape (N, bytes), but are {strings.dtype} {strings.shape}.")
    if bits < 0:
        raise MedvarError(f"bits, the largest number of different bits, must be at least 0, but is {bits}.")
    length = strings.shape[1] * 8
    if bits >= length:
        raise MedvarError(f"Strings of {length} bits all differ in at most {bits}.")
    pieces = _pieces(strings, max(bits + 1, -(-length // _KEY_BITS)))
    for number, piece in enumerate(pieces):
        for first, second in _equal_pairs(piece):
            distances = np.bitwise_count(strings[first] ^ strings[second]).sum(axis=1, dtype=np.int64)
            near = distances <= bits
            first, second, distances = first[near], second[near], distances[near]
            new = ~(pieces[:number, first] == pieces[:number, second]).any(axis=0)
            if new.any():
                yield first[new], second[new], distances[new]


def _pieces(strings: NDArray[np.uint8], count: int) -> NDArray[np.uint64]:
    """The pieces of each string as numbers (count, N): piece i consists of every ``count``-th bit from bit i on."""
    pieces = np.zeros((count, len(strings)), dtype=np.uint64)
    for start in range(0, len(strings), _BLOCK):
        unpacked = np.unpackbits(strings[start : start + _BLOCK], axis=1)
        for number in range(count):
            packed = np.packbits(unpacked[:, number::count], axis=1)
            padded = np.zeros((len(packed), 8), dtype=np.uint8)
            padded[:, : packed.shape[1]] = packed
            pieces[number, start : start + _BLOCK] = padded.view(np.uint64)[:, 0]
    return pieces


def _equal_pairs(values: NDArray[np.uint64]) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs ``first < second`` of indices with equal values; first those that are adjacent in sorted order."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    at = np.arange(len(values))
    step = 1
    while (at := at[: np.searchsorted(at, len(values) - step)]).size:
        at = at[ordered[at] == ordered[at + step]]
        if at.size:
            yield order[at], order[at + step]
        step += 1
