"""Whole images for scripts: what is asked for in JSON, and a message a scale as it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from medvar_engine.backends.messages import pack
from medvar_engine.errors import MedvarError
from medvar_engine.generation import Generation
from medvar_engine.generator import Generator
from medvar_engine.request import Request
from medvar_engine.sampling import Sampling
from medvar_engine.trace import traces_from_dict, traces_to_dict

_KNOWN = {"requests", "traces", "previews"}


def started(generator: Generator, asked: Mapping[str, Any], default: Sampling, rows: int) -> Generation:
    """The images that ``asked`` is about: new ones of ``requests``, or unfinished ones of ``traces`` to go on with.

    A resample or an edit is such an unfinished trace: its parent is its coarse scales' source.
    """
    if unknown := sorted(set(asked) - _KNOWN):
        raise MedvarError(f"Unknown field {unknown[0]!r}; the fields are {', '.join(sorted(_KNOWN))}.")
    if ("requests" in asked) == ("traces" in asked):
        raise MedvarError("Give either requests, for new images, or traces, to go on with.")
    if "traces" in asked:
        traces = traces_from_dict(_object(asked["traces"]))
        _check_count(len(traces), rows)
        return generator.restore(traces)
    requests = asked["requests"]
    if not isinstance(requests, list):
        raise MedvarError("requests is a list.")
    _check_count(len(requests), rows)
    return generator.start([_request(_object(values), default) for values in requests])


def frames(generator: Generator, generation: Generation, *, previews: bool) -> Iterator[bytes]:
    """A message a scale, as soon as it is drawn: its tokens, their entropy, its preview. Then the images and traces."""
    for longer in generator.run(generation):
        generation, k = longer, longer.depth - 1
        arrays: dict[str, npt.NDArray[Any]] = {"tokens": generation.pyramid.tokens(k)}
        if len(generation.entropy) == generation.depth:
            arrays["entropy"] = generation.entropy[k]
        if previews and not generation.complete:
            arrays["preview"] = generator.preview(generation, k)
        yield pack({"scale": k}, arrays)
    yield pack({"traces": traces_to_dict(generation.traces)}, {"images": generator.image(generation)})


def _request(values: Mapping[str, Any], default: Sampling) -> Request:
    values = {"condition": {}, "seed": 0, **values}
    try:
        sampling = {**default.to_dict(), **_object(values.get("sampling", {}))}
        return Request.from_dict({**values, "condition": _object(values["condition"]), "sampling": sampling})
    except (TypeError, ValueError, OverflowError) as error:
        raise MedvarError(f"This is not a request: {error}.") from error


def _object(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise MedvarError(f"An object of JSON was expected, but got {str(values)[:80]!r}.")
    return values


def _check_count(count: int, rows: int) -> None:
    if not 0 < count <= rows:
        raise MedvarError(f"1 to {rows} images can be asked for at a time, but these are {count}.")
