"""`Trace`: how an image was made, complete enough to make it again, and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import medvar_engine
from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Edit, Encoded, Graft, Outside, Replace, Resample, edit_from_dict, edit_to_dict
from medvar_engine.request import Request
from medvar_engine.tokens.pyramid import TokenPyramid
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json

__all__ = ["Edit", "Encoded", "Graft", "Outside", "Replace", "Request", "Resample", "Trace"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False, slots=True)
class Trace:
    """One finished or unfinished image. A resample or an edit makes a new trace with the old one as its parent."""

    request: Request
    pyramid: TokenPyramid  # of one image
    entropy: tuple[FloatArray, ...]  # bits per token, (side, side) per scale; empty for an encoded image
    bundle_id: str  # of the bundle that made it
    edit: Edit | None = None
    parent: Trace | None = None
    version: str = medvar_engine.__version__

    @property
    def encoded(self) -> bool:
        """Whether this is an encoded real image, of which no token was drawn."""
        return isinstance(self.edit, Encoded) and self.edit.real

    @property
    def of_real_image(self) -> bool:
        """Whether this image or one of its ancestors was encoded from a real image."""
        return any(trace.encoded for trace in lineage([self]))

    def shows_patient(self, *, copied: bool) -> bool:
        """Whether this shows a patient: an encoded real image, or one that is still similar to it (``copied``)."""
        return self.encoded or (copied and self.of_real_image)

    def to_json(self) -> str:
        """One line of JSON: the ancestors of this trace, then the trace itself."""
        return json.dumps(traces_to_dict([self]), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """The inverse of `to_json`. Raises `MedvarError` for anything that is not a trace."""
        traces = traces_from_json(text)
        if len(traces) != 1:
            raise MedvarError(f"A trace of one image is expected, but {len(traces)} are given.")
        return traces[0]


def traces_to_dict(traces: Sequence[Trace]) -> dict[str, Any]:
    """Plain values for JSON: the traces and all their ancestors, each once, because traces may share ancestors."""
    images = lineage(traces)
    places = {id(trace): place for place, trace in enumerate(images)}
    return {
        "medvar_trace": SCHEMA_VERSION,
        "images": [_trace_to_dict(trace, places) for trace in images],
        "asked": [places[id(trace)] for trace in traces],
    }


def traces_from_json(text: str) -> list[Trace]:
    """The traces in a JSON text of `traces_to_dict`. Raises `MedvarError` for anything else."""
    try:
        return traces_from_dict(plain_json.loads(text))
    except (ValueError, RecursionError) as error:
        raise MedvarError(f"This is not a MedVAR trace, or it is damaged: {error!r:.200}.") from error


def traces_from_dict(values: Mapping[str, Any]) -> list[Trace]:
    """The inverse of `traces_to_dict`. Raises `MedvarError` for anything else."""
    try:
        version = values["medvar_trace"]
        if version != SCHEMA_VERSION:
            raise MedvarError(f"This trace has format {version}; this version reads {SCHEMA_VERSION}. Update medvar.")
        earlier: list[Trace] = []
        for image in values["images"]:
            earlier.append(_trace_from_dict(image, earlier))
        # A file of one image may lack this key; then the last trace is meant.
        return [_pick(earlier, place) for place in values.get("asked", [len(earlier) - 1])]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise MedvarError(f"This is not a MedVAR trace, or it is damaged: {error!r:.200}.") from error


def lineage(traces: Sequence[Trace]) -> list[Trace]:
    """The traces and all their ancestors, ancestors first, each once.

    The result is a flat list, because a lineage is as long as a session and grafted images share ancestors: a nested
    form would exceed the stack and double with every graft.
    """
    found: dict[int, Trace] = {}
    waiting = list(reversed(traces))
    while waiting:
        current = waiting[-1]
        if sources := [source for source in _sources(current) if id(source) not in found]:
            waiting += sources
        else:
            found[id(current)] = waiting.pop()
    return list(found.values())


def _sources(trace: Trace) -> list[Trace]:
    coarse = [trace.edit.coarse] if isinstance(trace.edit, Graft) else []
    return [*coarse, trace.parent] if trace.parent else coarse


def _trace_to_dict(trace: Trace, places: Mapping[int, int]) -> dict[str, Any]:
    return {
        **trace.request.to_dict(),
        "schedule": list(trace.pyramid.schedule.sides),
        "tokens": trace.pyramid.sequence[0].tolist(),
        "entropy": [[round(float(value), 4) for value in scale.ravel()] for scale in trace.entropy],
        "model": trace.bundle_id,
        "version": trace.version,
        "edit": edit_to_dict(trace.edit, lambda other: places[id(other)]) if trace.edit else None,
        "parent": places[id(trace.parent)] if trace.parent else None,
    }


def _trace_from_dict(values: Mapping[str, Any], earlier: Sequence[Trace]) -> Trace:
    schedule = ScaleSchedule(tuple(values["schedule"]))
    entropy = tuple(
        np.array(scale, dtype=np.float32).reshape(side, side)
        for scale, side in zip(values["entropy"], schedule, strict=False)
    )
    if not all(np.isfinite(scale).all() for scale in entropy):
        raise ValueError("the entropy of a token is not a finite number")
    return Trace(
        Request.from_dict(values),
        TokenPyramid.from_sequence(schedule, np.array([values["tokens"]], dtype=np.int64)),
        entropy,
        str(values["model"]),
        edit_from_dict(values["edit"], lambda place: _pick(earlier, place)) if values["edit"] else None,
        None if values["parent"] is None else _pick(earlier, values["parent"]),
        str(values["version"]),
    )


def _pick(earlier: Sequence[Trace], place: int) -> Trace:
    if not 0 <= place < len(earlier):
        raise IndexError(f"image {place} is not one of the {len(earlier)} images before it")
    return earlier[place]
