"""`Trace`: what made an image, and enough to make it again. To and from JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import medvar_engine
from medvar_engine.arrays import BoolArray, FloatArray, IntArray
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.pyramid import TokenPyramid
from medvar_engine.sampling import Sampling, check_seed
from medvar_engine.schedule import ScaleSchedule

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Request:
    """One image that is asked for."""

    condition: Condition = Condition()
    seed: int = 0
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True, eq=False, slots=True)
class Resample:
    """Scales ``from_scale…`` were drawn anew; with a mask ``(H, W)``, only where it is true."""

    from_scale: int
    mask: BoolArray | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Replace:
    """Tokens of one scale were put in by hand, and all finer scales drawn again."""

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
    """The pyramid was encoded from a real image, named by the sha256 of its pixels; nothing was drawn."""

    image: str


Edit = Resample | Replace | Graft | Encoded


@dataclass(frozen=True, eq=False, slots=True)
class Trace:
    """One finished or unfinished image. A resample or an edit makes a new trace, whose parent is the old one."""

    request: Request
    pyramid: TokenPyramid  # of one image
    entropy: tuple[FloatArray, ...]  # bits a token, (side, side) each; empty for an encoded image
    model: str  # BackendInfo.model
    edit: Edit | None = None
    parent: Trace | None = None
    version: str = medvar_engine.__version__

    def to_json(self) -> str:
        """One line of JSON: this trace last, after the traces that it came from."""
        lineage = _lineage(self)
        places = {id(trace): place for place, trace in enumerate(lineage)}
        images = [_trace_to_dict(trace, places) for trace in lineage]
        return json.dumps({"medvar_trace": SCHEMA_VERSION, "images": images}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """The inverse of `to_json`. Raises `MedvarError` for anything that is not a trace."""
        try:
            values = json.loads(text)
            version = values["medvar_trace"]
            if version != SCHEMA_VERSION:
                raise MedvarError(
                    f"This trace has format {version}; this version reads {SCHEMA_VERSION}. Update medvar."
                )
            earlier: list[Trace] = []
            for image in values["images"]:
                earlier.append(_trace_from_dict(image, earlier))
            return earlier[-1]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise MedvarError(f"This is not a MedVAR trace, or it is damaged: {error!r}.") from error


def _lineage(trace: Trace) -> list[Trace]:
    """The trace and all that it came from, sources first, each once.

    A list, for lineages are as long as a session, and grafts let two images share most of theirs: nested they would
    outgrow the stack, and double with every graft.
    """
    lineage: dict[int, Trace] = {}
    waiting = [trace]
    while waiting:
        current = waiting[-1]
        if sources := [source for source in _sources(current) if id(source) not in lineage]:
            waiting += sources
        else:
            lineage[id(current)] = waiting.pop()
    return list(lineage.values())


def _sources(trace: Trace) -> list[Trace]:
    coarse = [trace.edit.coarse] if isinstance(trace.edit, Graft) else []
    return [*coarse, trace.parent] if trace.parent else coarse


def _trace_to_dict(trace: Trace, places: Mapping[int, int]) -> dict[str, Any]:
    request = trace.request
    return {
        "condition": request.condition.to_dict(),
        "seed": request.seed,
        "sampling": request.sampling.to_dict(),
        "schedule": list(trace.pyramid.schedule.sides),
        "tokens": trace.pyramid.sequence[0].tolist(),
        "entropy": [[round(float(value), 4) for value in scale.ravel()] for scale in trace.entropy],
        "model": trace.model,
        "version": trace.version,
        "edit": _edit_to_dict(trace.edit, places) if trace.edit else None,
        "parent": places[id(trace.parent)] if trace.parent else None,
    }


def _trace_from_dict(values: Mapping[str, Any], earlier: Sequence[Trace]) -> Trace:
    schedule = ScaleSchedule(tuple(values["schedule"]))
    request = Request(Condition.from_dict(values["condition"]), int(values["seed"]), Sampling(**values["sampling"]))
    entropy = tuple(
        np.array(scale, dtype=np.float32).reshape(side, side)
        for scale, side in zip(values["entropy"], schedule, strict=False)
    )
    return Trace(
        request,
        TokenPyramid.from_sequence(schedule, np.array([values["tokens"]], dtype=np.int64)),
        entropy,
        str(values["model"]),
        _edit_from_dict(values["edit"], earlier) if values["edit"] else None,
        None if values["parent"] is None else _pick(earlier, values["parent"]),
        str(values["version"]),
    )


def _pick(earlier: Sequence[Trace], place: int) -> Trace:
    if not 0 <= place < len(earlier):
        raise IndexError(f"image {len(earlier)} comes from image {place}, which is not before it")
    return earlier[place]


def _edit_to_dict(edit: Edit, places: Mapping[int, int]) -> dict[str, Any]:
    match edit:
        case Resample():
            mask = None if edit.mask is None else _mask_to_dict(edit.mask)
            return {"kind": "resample", "from_scale": edit.from_scale, "mask": mask}
        case Replace():
            where, tokens = _mask_to_dict(edit.where), edit.tokens.tolist()
            return {"kind": "replace", "scale": edit.scale, "where": where, "tokens": tokens}
        case Graft():
            return {"kind": "graft", "scale": edit.scale, "coarse": places[id(edit.coarse)]}
        case Encoded():
            return {"kind": "encoded", "image": edit.image}


def _edit_from_dict(values: Mapping[str, Any], earlier: Sequence[Trace]) -> Edit:
    match values["kind"]:
        case "resample":
            mask = None if values["mask"] is None else _mask_from_dict(values["mask"])
            return Resample(int(values["from_scale"]), mask)
        case "replace":
            tokens = np.array(values["tokens"], dtype=np.int64)
            return Replace(int(values["scale"]), _mask_from_dict(values["where"]), tokens)
        case "graft":
            return Graft(int(values["scale"]), _pick(earlier, values["coarse"]))
        case "encoded":
            return Encoded(str(values["image"]))
        case kind:
            raise MedvarError(f"This trace holds the unknown edit {kind!r}.")


def _mask_to_dict(mask: BoolArray) -> dict[str, Any]:
    return {"shape": list(mask.shape), "bits": base64.b64encode(np.packbits(mask).tobytes()).decode("ascii")}


def _mask_from_dict(values: Mapping[str, Any]) -> BoolArray:
    height, width = (int(n) for n in values["shape"])
    bits = np.frombuffer(base64.b64decode(values["bits"], validate=True), dtype=np.uint8)
    if min(height, width) < 0 or len(bits) != -(-height * width // 8):  # unpackbits would fill up with zeros
        raise ValueError(f"a mask of {height}×{width} pixels in {len(bits)} bytes")
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)
