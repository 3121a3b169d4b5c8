"""Edits: immutable descriptions of how one trace was made from another, and their JSON form."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.request import Request
from medvar_engine.tokens.pyramid import TokenPyramid, graft, replace
from medvar_engine.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from medvar_engine.generate.trace import Trace


@dataclass(frozen=True, slots=True)
class Outside:
    """Pixels outside the mask are exactly those of the parent. New ones fade in over ``soft_edge`` pixels inside it."""

    soft_edge: float = 0.0  # pixels; 0 is a hard edge

    def __post_init__(self) -> None:
        if not (math.isfinite(self.soft_edge) and self.soft_edge >= 0):
            raise MedvarError(f"The width of a soft edge must be 0 or more pixels, but is {self.soft_edge}.")


@dataclass(frozen=True, eq=False, slots=True)
class Resample:
    """Scales ``from_scale…`` were drawn again; with a mask ``(H, W)``, only where it is true."""

    from_scale: int
    mask: BoolArray | None = None
    keep: tuple[int, ...] = ()  # locked scales: their token maps are those of the parent
    outside: Outside | None = None  # None: the decoder may change pixels outside the mask, too
    inverted: Request | None = None  # drawn with the noise that explains the parent's tokens under this request


@dataclass(frozen=True, eq=False, slots=True)
class Replace:
    """Tokens of one scale were replaced by hand, and all finer scales drawn again."""

    scale: int
    where: BoolArray  # (side, side)
    tokens: IntArray  # (side, side)


@dataclass(frozen=True, eq=False, slots=True)
class Graft:
    """Scales ``0…scale-1`` come from another image."""

    scale: int
    coarse: Trace


@dataclass(frozen=True, slots=True)
class Encoded:
    """The pyramid was encoded from an image, named by the sha256 of its pixels; nothing was drawn."""

    image: str
    real: bool = True  # False: the image shows no patient; it was blank or drawn by the model


Edit = Resample | Replace | Graft | Encoded


def replaced(trace: Trace, edit: Replace) -> tuple[TokenPyramid, tuple[FloatArray, ...]]:
    """The scales of ``trace`` up to the edited one, with the tokens of the edit, and their entropies."""
    k = trace.pyramid.schedule.check_scale(edit.scale)
    side = trace.pyramid.schedule[k]
    if edit.where.shape != (side, side) or edit.tokens.shape != (side, side):
        raise MedvarError(f"Scale {k} needs a mask and tokens of shape {side}×{side}.")
    known = trace.pyramid.prefix(min(k + 1, trace.pyramid.depth))
    return replace(known, k, edit.where, edit.tokens), trace.entropy[: k + 1]


def grafted(trace: Trace, edit: Graft) -> tuple[TokenPyramid, tuple[FloatArray, ...]]:
    """The coarse scales of the image in the edit and the finer ones of ``trace``, and the entropies of both."""
    k = trace.pyramid.schedule.check_scale(edit.scale)
    known = edit.coarse.entropy[:k]
    # Entropy is stored per scale: if that of a coarser scale is unknown, that of finer ones is dropped.
    known = (*known, *trace.entropy[k:]) if len(known) == k else known
    return graft(edit.coarse.pyramid, trace.pyramid, k), known


def edit_to_dict(edit: Edit, place: Callable[[Trace], int]) -> dict[str, Any]:
    """Plain values, for JSON. Other traces are referred to by their index, given by ``place``."""
    match edit:
        case Resample():
            return {
                "kind": "resample",
                "from_scale": edit.from_scale,
                "mask": None if edit.mask is None else _mask_to_dict(edit.mask),
                "keep": list(edit.keep),
                "outside": None if edit.outside is None else {"soft_edge": edit.outside.soft_edge},
                "inverted": None if edit.inverted is None else edit.inverted.to_dict(),
            }
        case Replace():
            where, tokens = _mask_to_dict(edit.where), edit.tokens.tolist()
            return {"kind": "replace", "scale": edit.scale, "where": where, "tokens": tokens}
        case Graft():
            return {"kind": "graft", "scale": edit.scale, "coarse": place(edit.coarse)}
        case Encoded():
            return {"kind": "encoded", "image": edit.image, **({} if edit.real else {"real": False})}


def edit_from_dict(values: Mapping[str, Any], pick: Callable[[int], Trace]) -> Edit:
    """The inverse of `edit_to_dict`; ``pick`` gives the trace of an index."""
    match values["kind"]:
        case "resample":
            # Older files lack locked scales, exact outsides and inversions.
            outside, inverted = values.get("outside"), values.get("inverted")
            return Resample(
                int(values["from_scale"]),
                None if values["mask"] is None else _mask_from_dict(values["mask"]),
                tuple(int(k) for k in values.get("keep", ())),
                None if outside is None else Outside(float(outside["soft_edge"])),
                None if inverted is None else Request.from_dict(inverted),
            )
        case "replace":
            tokens = np.array(values["tokens"], dtype=np.int64)
            return Replace(int(values["scale"]), _mask_from_dict(values["where"]), tokens)
        case "graft":
            return Graft(int(values["scale"]), pick(values["coarse"]))
        case "encoded":
            # Older files do not tell real images from others. An image counts as real unless its file denies it.
            return Encoded(str(values["image"]), real=values.get("real") is not False)
        case kind:
            raise MedvarError(f"This trace has an unknown edit {kind!r}.")


def _mask_to_dict(mask: BoolArray) -> dict[str, Any]:
    return {"shape": list(mask.shape), "bits": base64.b64encode(np.packbits(mask).tobytes()).decode("ascii")}


def _mask_from_dict(values: Mapping[str, Any]) -> BoolArray:
    height, width = (int(n) for n in values["shape"])
    bits = np.frombuffer(base64.b64decode(values["bits"], validate=True), dtype=np.uint8)
    if min(height, width) < 0 or len(bits) != -(-height * width // 8):  # unpackbits would pad with zeros
        raise ValueError(f"a mask of {height}×{width} pixels in {len(bits)} bytes")
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)
