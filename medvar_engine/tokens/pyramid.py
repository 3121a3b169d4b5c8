"""`TokenPyramid`: the token maps of a batch of images, and edits of it as pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class TokenPyramid:
    """The token maps of B images: scales ``0…depth-1`` of the schedule, each ``(B, side, side)`` integers.

    A pyramid with fewer scales than the schedule is a *prefix*. Pyramids are immutable: an edit gives a new one.
    """

    schedule: ScaleSchedule
    maps: tuple[IntArray, ...]
    batch: int = field(default=-1)

    def __post_init__(self) -> None:
        maps = tuple(_frozen_map(m) for m in self.maps)
        batch = len(maps[0]) if maps else max(self.batch, 0)
        if len(maps) > len(self.schedule):
            raise MedvarError(f"A pyramid of {len(self.schedule)} scales cannot hold {len(maps)} token maps.")
        for k, (token_map, side) in enumerate(zip(maps, self.schedule, strict=False)):
            if token_map.shape != (batch, side, side):
                raise MedvarError(f"The token map of scale {k} must be {(batch, side, side)}, not {token_map.shape}.")
            if token_map.size and token_map.min() < 0:
                raise MedvarError(f"The token map of scale {k} holds the negative token {token_map.min()}.")
        object.__setattr__(self, "maps", maps)
        object.__setattr__(self, "batch", batch)

    @classmethod
    def empty(cls, schedule: ScaleSchedule, batch: int) -> TokenPyramid:
        """B images without any scale."""
        return cls(schedule, (), batch)

    @classmethod
    def from_sequence(cls, schedule: ScaleSchedule, tokens: npt.NDArray[np.integer[Any]]) -> TokenPyramid:
        """A pyramid from tokens ``(B, L)``, coarse to fine, of complete scales. The inverse of `sequence`."""
        if tokens.ndim != 2 or tokens.shape[1] not in schedule.offsets:
            raise MedvarError(
                f"Tokens must be (images, length) with a length of {list(schedule.offsets)}, not {tokens.shape}."
            )
        depth = schedule.offsets.index(tokens.shape[1])
        parts = np.split(tokens, schedule.offsets[1:depth], axis=1) if depth else []
        maps = tuple(part.reshape(len(tokens), side, side) for part, side in zip(parts, schedule, strict=False))
        return cls(schedule, maps, len(tokens))

    @property
    def depth(self) -> int:
        """Number of scales so far."""
        return len(self.maps)

    @property
    def complete(self) -> bool:
        """Whether it has every scale of the schedule."""
        return self.depth == len(self.schedule)

    @property
    def sequence(self) -> IntArray:
        """All tokens ``(B, L)``, coarse to fine, row by row."""
        if not self.maps:
            return np.empty((self.batch, 0), dtype=np.int64)
        return np.concatenate([m.reshape(self.batch, -1) for m in self.maps], axis=1)

    def tokens(self, k: int) -> IntArray:
        """Scale k as a sequence ``(B, L_k)``."""
        if not 0 <= k < self.depth:
            raise MedvarError(
                f"Scale {k} is out of range: this pyramid has {self.depth} of {len(self.schedule)} scales."
            )
        return self.maps[k].reshape(self.batch, -1)

    def prefix(self, depth: int) -> TokenPyramid:
        """The first ``depth`` scales."""
        if not 0 <= depth <= self.depth:
            raise MedvarError(f"A prefix of {depth} scales is out of range: this pyramid has {self.depth}.")
        return TokenPyramid(self.schedule, self.maps[:depth], self.batch)

    def append(self, tokens: npt.NDArray[np.integer[Any]]) -> TokenPyramid:
        """The pyramid with one more scale, from tokens ``(B, L_k)`` or ``(B, side, side)``."""
        if self.complete:
            raise MedvarError("This pyramid is complete; there is no finer scale to add.")
        side = self.schedule[self.depth]
        if tokens.size != self.batch * side * side:
            raise MedvarError(
                f"Scale {self.depth} needs {side}×{side} tokens per image, but the shape is {tokens.shape}."
            )
        token_map = _frozen_map(tokens.reshape(self.batch, side, side))
        return TokenPyramid(self.schedule, (*self.maps, token_map), self.batch)

    def select(self, images: Sequence[int]) -> TokenPyramid:
        """The pyramids of some images, in the given order."""
        index = np.asarray(images, dtype=np.intp)
        return TokenPyramid(self.schedule, tuple(m[index] for m in self.maps), len(index))

    @classmethod
    def stack(cls, pyramids: Iterable[TokenPyramid]) -> TokenPyramid:
        """One batch of several pyramids with the same schedule and depth."""
        parts = list(pyramids)
        if not parts or any((p.schedule, p.depth) != (parts[0].schedule, parts[0].depth) for p in parts):
            raise MedvarError("Only pyramids with the same schedule and the same number of scales can form a batch.")
        maps = tuple(np.concatenate(maps) for maps in zip(*(p.maps for p in parts), strict=True))
        return cls(parts[0].schedule, maps, sum(p.batch for p in parts))

    def digest(self, image: int) -> str:
        """sha256 of the schedule and the tokens of one image."""
        digest = hashlib.sha256(repr(self.schedule.sides).encode())
        for token_map in self.maps:
            digest.update(np.ascontiguousarray(token_map[image]).tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenPyramid):
            return NotImplemented
        same = (self.schedule, self.batch, self.depth) == (other.schedule, other.batch, other.depth)
        return same and all(np.array_equal(a, b) for a, b in zip(self.maps, other.maps, strict=True))

    def __hash__(self) -> int:
        return hash((self.schedule, self.batch, tuple(self.digest(i) for i in range(self.batch))))


def graft(coarse: TokenPyramid, fine: TokenPyramid, k: int) -> TokenPyramid:
    """Scales ``0…k-1`` of ``coarse`` combined with scales ``k…`` of ``fine``."""
    if (coarse.schedule, coarse.batch) != (fine.schedule, fine.batch):
        raise MedvarError("Only pyramids of the same schedule and the same number of images can be grafted.")
    return TokenPyramid(coarse.schedule, (*coarse.prefix(k).maps, *fine.maps[k:]), coarse.batch)


def replace(pyramid: TokenPyramid, k: int, where: BoolArray, tokens: npt.NDArray[np.integer[Any]]) -> TokenPyramid:
    """Scale k with ``tokens`` at the positions where ``where`` is true; both broadcast to ``(B, side, side)``."""
    old = pyramid.maps[pyramid.schedule.check_scale(k)] if k < pyramid.depth else None
    if old is None:
        raise MedvarError(f"Scale {k} does not exist yet: this pyramid has {pyramid.depth} scales.")
    try:
        new = np.where(np.broadcast_to(where, old.shape), np.broadcast_to(tokens, old.shape), old)
    except ValueError as error:
        raise MedvarError(
            f"Scale {k} is {old.shape}; mask {where.shape} and tokens {tokens.shape} do not fit."
        ) from error
    return TokenPyramid(pyramid.schedule, (*pyramid.maps[:k], new, *pyramid.maps[k + 1 :]), pyramid.batch)


def one_token(schedule: ScaleSchedule, k: int, row: int, column: int) -> BoolArray:
    """A mask ``(side, side)`` of one token of scale k."""
    side = schedule[schedule.check_scale(k)]
    if not (0 <= row < side and 0 <= column < side):
        raise MedvarError(f"Scale {k} has {side}×{side} tokens, so there is no token at ({row}, {column}).")
    where = np.zeros((side, side), dtype=np.bool_)
    where[row, column] = True
    return where


def mask_at_scale(mask: BoolArray, side: int) -> BoolArray:
    """A mask on the image grid ``(H, W)`` → the tokens ``(side, side)`` that it touches."""
    rows, columns = (_bounds(size, side) for size in mask.shape)
    touched = [[bool(mask[top:bottom, left:right].any()) for left, right in columns] for top, bottom in rows]
    return np.array(touched, dtype=np.bool_)


def _bounds(size: int, side: int) -> list[tuple[int, int]]:
    """The pixels ``start:stop`` under each of ``side`` tokens."""
    return [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]


def _frozen_map(tokens: npt.NDArray[np.integer[Any]]) -> IntArray:
    if not np.issubdtype(np.asarray(tokens).dtype, np.integer):
        raise MedvarError(f"Tokens are integers, not {np.asarray(tokens).dtype}.")
    if (
        isinstance(tokens, np.ndarray)
        and tokens.dtype == np.int64
        and not tokens.flags.writeable
        and tokens.base is None
    ):
        return cast(IntArray, tokens)
    copy = np.array(tokens, dtype=np.int64)
    copy.setflags(write=False)
    return copy
