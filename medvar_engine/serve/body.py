"""Reads the body of a request, with limits of size and time, if the request is for the model of this server."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from medvar_engine.remote.connection import MODEL_HEADER
from medvar_engine.serve.limits import HANG_UP, Refused
from medvar_engine.serve.memory_budget import Share


def check_model(request: Request, model: str) -> None:
    """Raises `Refused` if the request is for another model than ``model``, a sha256."""
    meant = request.headers.get(MODEL_HEADER)
    if meant not in (None, model):
        raise Refused(
            409,
            f"This server has another model (sha256 {model[:12]}…) than the requested one (sha256 {meant[:12]}…). "
            "Connect to it again, or open the bundle that made these images.",
        )


async def read_body(request: Request, share: Share, *, most: int, seconds: float) -> bytes:
    """Read a body of at most ``most`` bytes within ``seconds``. Raises `Refused` otherwise.

    Memory is counted in ``share`` for received bytes only, not for the announced length. If there is not enough memory,
    the body is read to its end and discarded, because the client would not see the response otherwise.
    """
    large = Refused(413, f"A request may have at most {most} bytes. Request less at a time.", HANG_UP)
    if int(request.headers.get("content-length", 0)) > most:  # h11 accepts digits only
        raise large
    parts, length, full = [], 0, None
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                length += len(part)
                if length > most:
                    raise large
                if full is None:
                    try:
                        share.take(len(part))
                        parts.append(part)
                    except Refused as refused:
                        full = refused
                        parts.clear()
                        share.let_go()
    except ClientDisconnect as error:
        raise Refused(499, "The client has disconnected.") from error
    except TimeoutError as error:
        raise Refused(408, f"The request did not arrive within {seconds:g} s.", HANG_UP) from error
    if full is not None:
        raise full
    return b"".join(parts)
