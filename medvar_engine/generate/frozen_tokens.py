"""Tokens that an edit leaves unchanged while the rest is drawn: locked scales, and tokens outside its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvar_engine.generate.edits import Resample
from medvar_engine.tokens.pyramid import TokenPyramid, mask_at_scale
from medvar_engine.types import BoolArray, IntArray


@dataclass(frozen=True, eq=False, slots=True)
class FrozenTokens:
    """Frozen tokens of one scale: where ``keep`` is true, they are taken from ``tokens`` and not drawn."""

    keep: BoolArray  # (L_k,)
    tokens: IntArray  # (L_k,)

    def put_back(self, drawn: IntArray) -> IntArray:
        """The drawn tokens ``(L_k,)`` with the frozen ones at their positions."""
        return np.where(self.keep, self.tokens, drawn)


def frozen_tokens(parent: TokenPyramid, edit: Resample) -> tuple[FrozenTokens | None, ...]:
    """Frozen tokens of ``parent`` (one image) under ``edit``, per scale; None for a scale that is drawn completely."""
    return tuple(_frozen(parent, edit, k) for k in range(len(parent.schedule)))


def _frozen(parent: TokenPyramid, edit: Resample, k: int) -> FrozenTokens | None:
    if k < edit.from_scale or (edit.mask is None and k not in edit.keep):
        return None
    tokens = parent.tokens(k)[0]
    if edit.mask is None or k in edit.keep:
        return FrozenTokens(np.ones(len(tokens), dtype=np.bool_), tokens)
    return FrozenTokens(~mask_at_scale(edit.mask, parent.schedule[k]).ravel(), tokens)
