"""The application: what is asked for at which path, and how mistakes are answered.

docs/reference/serve-protocol.md tells a client all of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from medvar_engine.backends.base import Backend
from medvar_engine.backends.messages import Message, pack, unpack
from medvar_engine.backends.remote import served_files
from medvar_engine.backends.server import MODEL_HEADER, PROTOCOL
from medvar_engine.bundle import MANIFEST, Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generator import Generator
from medvar_engine.prefix_cache import PrefixCache
from medvar_engine.serve.guard import Guard
from medvar_engine.serve.limits import HANG_UP, Limits, Refused
from medvar_engine.serve.networks import Arrays, BeforeScale, Networks
from medvar_engine.serve.stream import frames, started
from medvar_engine.serve.turns import Deadline, Turns

_BYTES = "application/octet-stream"
_BUG = "Something is wrong in the server; its log says what. The request may be sent again."


def make_app(
    bundle: Bundle, backend: Backend, limits: Limits, *, token: str | None = None, hosts: Collection[str] = ()
) -> FastAPI:
    """The application that serves ``bundle``, run by ``backend``. For ``token`` and ``hosts`` see `Guard`."""
    app = FastAPI(openapi_url=None, exception_handlers=_HANDLERS)  # no pages: those of FastAPI load scripts of others
    app.add_middleware(Guard, token=token, hosts=hosts, rate=limits.rate)
    turns = Turns(limits)
    networks = Networks(backend, PrefixCache(limits.cache // 2), limits.rows)
    generator = Generator(backend, PrefixCache(limits.cache // 2))
    manifest, names = (bundle.path / MANIFEST).read_bytes(), served_files(bundle)

    @app.get("/model")
    async def model() -> dict[str, Any]:
        return {
            "medvar_serve": PROTOCOL,
            "model": backend.info.model,
            "provider": backend.info.provider,
            "precision": backend.info.precision,
            "rows": limits.rows,
            "body": limits.body,
        }

    @app.get("/bundle/{name}")
    async def file(name: str) -> Response:
        if name not in (MANIFEST, *names):  # of what a client names, nothing else is looked for on the disk
            raise Refused(404, f"There is no file {name!r} here; there are {', '.join((MANIFEST, *names))}.")
        content = manifest if name == MANIFEST else await run_in_threadpool(bundle.read, name)
        return Response(content, media_type=_BYTES)

    for name, call in networks.calls.items():
        app.post(f"/{name}")(_network(call, backend, turns, limits))

    @app.post("/generate")
    async def generate(request: Request) -> Response:
        asked = _json(await _body(request, backend, limits))
        deadline = Deadline.after(limits.seconds)
        generation = await turns.run(lambda: started(generator, asked, bundle.sampling, limits.rows), deadline)
        made = frames(generator, generation, previews=asked.get("previews", True) is True)
        return StreamingResponse(_streamed(made, turns, deadline), media_type=_BYTES)

    return app


def _network(
    call: Callable[[Message, BeforeScale], Arrays], backend: Backend, turns: Turns, limits: Limits
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body = await _body(request, backend, limits)
        deadline = Deadline.after(limits.seconds)
        content = await turns.run(lambda: pack({}, call(unpack(body), deadline.check)), deadline)
        return Response(content, media_type=_BYTES)

    return answer


async def _streamed(made: Iterator[bytes], turns: Turns, deadline: Deadline) -> AsyncIterator[bytes]:
    """Each scale in a turn of its own. A client that hangs up ends this, and with it the work, after that scale."""
    try:
        while frame := await turns.run(lambda: next(made, b""), deadline, begun=True):
            yield frame
    except MedvarError as error:  # the status is sent already
        yield pack({"error": str(error)}, {})


async def _body(request: Request, backend: Backend, limits: Limits) -> bytes:
    """All of a request's body, which is neither too large nor too slow, from a client that means this model."""
    meant = request.headers.get(MODEL_HEADER)
    if meant not in (None, backend.info.model):
        raise Refused(
            409,
            f"This server has another model (sha256 {backend.info.model[:12]}…) than the one that is asked for (sha256 "
            f"{meant[:12]}…). Connect to it anew, or open the bundle that made these images.",
        )
    large = Refused(
        413, f"A request may hold {limits.body} bytes, and this one holds more. Ask for less at a time.", HANG_UP
    )
    if int(request.headers.get("content-length", 0)) > limits.body:  # h11 lets only digits through
        raise large
    parts, length = [], 0
    try:
        async with asyncio.timeout(limits.slow):
            async for part in request.stream():
                length += len(part)
                if length > limits.body:
                    raise large
                parts.append(part)
    except TimeoutError as error:
        raise Refused(408, f"The request did not arrive within {limits.slow:g} s.", HANG_UP) from error
    return b"".join(parts)


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MedvarError(f"The request is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise MedvarError("The request must be an object of JSON, with requests or traces.")
    return values


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return JSONResponse({"error": error.text}, error.status, dict(error.headers))
    return JSONResponse({"error": str(error)}, 400)


async def _no_such_path(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return JSONResponse({"error": "There is nothing at this path for this method."}, status)


async def _bug(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": _BUG}, 500)


_HANDLERS: dict[Any, Any] = {MedvarError: _refused, HTTPException: _no_such_path, Exception: _bug}
