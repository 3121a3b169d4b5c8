"""The application: the paths of the server, and the responses to errors.

docs/reference/serve-protocol.md describes the protocol for clients.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import ExitStack
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from medvar_engine.backends.base import Backend
from medvar_engine.bundle.read import MANIFEST, Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_cache import PrefixCache
from medvar_engine.memorisation.copy_risk import CopyPolicy
from medvar_engine.memorisation.screen import CopyScreen
from medvar_engine.remote.connection import PROTOCOL
from medvar_engine.remote.messages import Message, pack, unpack
from medvar_engine.remote.remote_backend import served_files
from medvar_engine.serve.answer import BYTES, Answer
from medvar_engine.serve.body import check_model, read_body
from medvar_engine.serve.guard import Guard
from medvar_engine.serve.jobs import Job, Jobs
from medvar_engine.serve.limits import Limits, Refused
from medvar_engine.serve.memory_budget import MemoryBudget
from medvar_engine.serve.network_requests import CALLS, Arrays, NetworkRequests
from medvar_engine.serve.networks import JobBackend, Networks
from medvar_engine.serve.stream import frames, parsed, started

_LOG = logging.getLogger("medvar.serve")
_LINE = 2**16  # bytes of the first line of a message, which holds few values
_FEATURES = 2**24  # bytes of cached scale features for the images of one request
_FILE = 3600  # seconds that a client has to download a file of the bundle
_BUG = "An error occurred in the server; its log has the details. The request may be sent again."


def make_app(
    bundle: Bundle,
    backend: Backend,
    limits: Limits,
    *,
    token: str | None = None,
    hosts: Collection[str] = (),
    copy_policy: CopyPolicy | None = None,
) -> FastAPI:
    """The application that serves ``bundle``, run by ``backend``.

    For ``token`` and ``hosts`` see `Guard`; for ``copy_policy``, which applies to whole images, see `CopyScreen`.
    """
    app = FastAPI(
        openapi_url=None, exception_handlers=_HANDLERS
    )  # no documentation pages: those of FastAPI load external scripts
    app.add_middleware(Guard, token=token, hosts=hosts, rate=limits.rate)
    jobs, memory = Jobs(limits), MemoryBudget(limits.memory)
    networks = Networks(backend, PrefixCache(limits.cache))
    copies = CopyScreen.of(bundle, copy_policy)
    manifest, names = (bundle.path / MANIFEST).read_bytes(), served_files(bundle)

    @app.get("/model")
    async def model() -> dict[str, Any]:
        return {
            "medvar_serve": PROTOCOL,
            "model": backend.info.bundle_id,
            "provider": backend.info.provider,
            "precision": backend.info.precision,
            "rows": limits.rows,
            "body": limits.body,
            "copy_policy": copies.policy,
        }

    @app.get("/bundle/{name}")
    async def file(name: str) -> Response:
        if name not in (MANIFEST, *names):  # no other file name of a client is looked up on the disk
            raise Refused(404, f"There is no file {name!r}. The files are {', '.join((MANIFEST, *names))}.")
        return Response(manifest, media_type=BYTES) if name == MANIFEST else Answer.of_file(bundle.path / name, _FILE)

    async def received(request: Request, held: ExitStack, most: int) -> tuple[bytes, Job]:
        check_model(request, backend.info.bundle_id)
        share = held.enter_context(memory.share(request.client.host if request.client else ""))
        body = await read_body(request, share, most=most, seconds=limits.slow)
        return body, Job(limits.seconds, share)

    def network(call: Callable[[NetworkRequests, Message], Arrays]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            with ExitStack() as held:
                body, job = await received(request, held, limits.body)
                calls = NetworkRequests(JobBackend(networks, job), job, limits.rows)
                content = await jobs.run(lambda: pack({}, call(calls, unpack(body, line=_LINE))), job)
                return Answer.of(content, held.pop_all(), limits.seconds)

        return answer

    for name, call in CALLS.items():
        app.post(f"/{name}")(network(call))

    @app.post("/generate")
    async def generate(request: Request) -> Response:
        with ExitStack() as held:
            body, job = await received(request, held, min(limits.json, limits.body))
            generator = Generator(JobBackend(networks, job), PrefixCache(_FEATURES))

            def begin() -> Iterator[bytes]:
                asked = parsed(body)
                begun = started(generator, asked, bundle.sampling, limits, job.share)
                previews = asked.get("previews", True) is True
                return frames(generator, begun, previews=previews, copies=copies)

            made = await jobs.run(begin, job)
            return Answer(_streamed(made, jobs, job), held.pop_all(), 2 * limits.seconds)

    return app


async def _streamed(made: Iterator[bytes], jobs: Jobs, job: Job) -> AsyncIterator[bytes]:
    """Send one scale at a time. When the client disconnects, the work ends before the next use of a network."""
    try:
        while frame := await jobs.run(lambda: next(made, b""), job, begun=True):
            yield frame
    except MedvarError as error:  # the status has been sent already
        yield pack({"error": str(error)}, {})
    except Exception:
        _LOG.exception("making images has failed")
        yield pack({"error": _BUG}, {})


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return JSONResponse({"error": error.text}, error.status, dict(error.headers))
    return JSONResponse({"error": str(error)}, 400)


async def _no_such_path(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return JSONResponse({"error": "This path or method does not exist."}, status)


async def _bug(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": _BUG}, 500)


_HANDLERS: dict[Any, Any] = {MedvarError: _refused, HTTPException: _no_such_path, Exception: _bug}
