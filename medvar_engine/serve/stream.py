"""Whole images for scripts: JSON requests, and one message for each scale as soon as it is drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from medvar_engine.backends.base import BackendInfo
from medvar_engine.errors import MedvarError
from medvar_engine.generate.composite import CACHED_IMAGES
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import lineage, traces_from_dict, traces_to_dict
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.remote.messages import pack
from medvar_engine.request import Request, Sampling
from medvar_engine.serve.limits import Limits
from medvar_engine.serve.memory_budget import Share
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json

_KNOWN = {"requests", "traces", "previews"}
_PARSES = threading.Lock()  # one at a time, because parsed values need many times the memory of their text


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object that a script has sent. Raises `MedvarError` for anything else."""
    try:
        with _PARSES:
            values = plain_json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MedvarError(f"The request is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise MedvarError("The request must be a JSON object with requests or traces.")
    return values


def started(
    generator: Generator, asked: Mapping[str, Any], default: Sampling, limits: Limits, share: Share
) -> Generation:
    """The requested images: new ones from ``requests``, or unfinished ones from ``traces`` to continue.

    A resample or an edit is such an unfinished trace; its coarse scales come from its parent. The memory of the images
    is reserved in ``share``. Raises `MedvarError` for invalid requests, and `Refused` beyond the limits.
    """
    if unknown := sorted(set(asked) - _KNOWN):
        raise MedvarError(f"Unknown field {unknown[0]!r}. The fields are {', '.join(sorted(_KNOWN))}.")
    if ("requests" in asked) == ("traces" in asked):
        raise MedvarError("Give either requests, for new images, or traces, to continue.")
    if "traces" in asked:
        values = _object(asked["traces"])
        images = values.get("images")
        if isinstance(images, list) and len(images) > limits.lineage:
            raise MedvarError(
                f"Traces can have at most {limits.lineage} ancestors, but these have {len(images)}. Continue them "
                "on the computer with the bundle: `medvar generate`, or the plugin with this server."
            )
        traces = traces_from_dict(values)
        _check_count(len(traces), limits.rows)
        share.take(_room(generator.backend.info, len(traces), len(lineage(traces))))
        return generator.restore(traces)
    requests = asked["requests"]
    if not isinstance(requests, list):
        raise MedvarError("requests must be a list.")
    _check_count(len(requests), limits.rows)
    share.take(_room(generator.backend.info, len(requests), 0))
    return generator.start([_request(_object(values), default) for values in requests])


def frames(generator: Generator, generation: Generation, *, previews: bool, copies: CopyScreen) -> Iterator[bytes]:
    """Yield a message for each scale as soon as it is drawn, with tokens, entropy and preview; then images and traces.

    Finished images are screened for ``copies`` of training slices. Withheld images are left out of the finest scale,
    the images and the traces.
    """
    scales = len(generator.backend.info.schedule)
    while generation.depth < scales - 1:
        generation = generator.step(generation)
        yield _scale(generation, generator.preview(generation, generation.depth - 1) if previews else None)
    drawn, generation = not generation.complete, generator.finish(generation)
    images = generator.image(generation)
    found = screen(images, copies)
    kept = list(found.kept)
    generation = generation.select(kept)
    if drawn and kept:
        yield _scale(generation, None)
    values: dict[str, Any] = {"traces": traces_to_dict(generation.traces)}
    if copies.gate:
        risks = [risk.to_dict() for risk in found.risks if risk]
        values["nearness"] = [risks[i] for i in kept]
        values["withheld"] = [{"image": i, **risks[i]} for i in found.withheld]
    yield pack(values, {"images": images[kept]})


def _scale(generation: Generation, preview: FloatArray | None) -> bytes:
    """The message of the latest scale."""
    k = generation.depth - 1
    arrays: dict[str, npt.NDArray[Any]] = {"tokens": generation.pyramid.tokens(k)}
    if len(generation.entropy) == generation.depth:
        arrays["entropy"] = generation.entropy[k]
    if preview is not None:
        arrays["preview"] = preview
    return pack({"scale": k}, arrays)


def _room(info: BackendInfo, images: int, earlier: int) -> int:
    """Bytes for ``images`` images: latents, scale features under two labels, and pixels; and for ``earlier`` images."""
    latents = len(info.schedule) * info.schedule.latent_side**2 * info.latent_channels
    features = 2 * info.schedule.tokens * info.feature_channels
    pixels = info.image_size**2 * info.channels
    return 4 * (images * (latents + features + 2 * pixels) + min(earlier, CACHED_IMAGES) * pixels)


def _request(values: Mapping[str, Any], default: Sampling) -> Request:
    values = {"condition": {}, "seed": 0, **values}
    try:
        sampling = _object(values.get("sampling", {}))
        return Request.from_dict({**values, "condition": _object(values["condition"]), "sampling": sampling}, default)
    except (TypeError, ValueError, OverflowError) as error:
        raise MedvarError(f"This is not a request: {error!s:.200}.") from error


def _object(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise MedvarError(f"A JSON object is expected, but got {str(values)[:80]!r}.")
    return values


def _check_count(count: int, rows: int) -> None:
    if not 0 < count <= rows:
        raise MedvarError(f"1 to {rows} images can be requested at a time, but these are {count}.")
