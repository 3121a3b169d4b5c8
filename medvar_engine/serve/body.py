"""A request's body: read only where it is neither too large nor too slow, and from a client that means this model."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from medvar_engine.remote.connection import MODEL_HEADER
from medvar_engine.serve.limits import HANG_UP, Refused
from medvar_engine.serve.memory_budget import Share


def check_model(request: Request, model: str) -> None:
    """Raises `Refused` where a client means another model than ``model``, a sha256."""
    meant = request.headers.get(MODEL_HEADER)
    if meant not in (None, model):
        raise Refused(
            409,
            f"This server has another model (sha256 {model[:12]}…) than the one that is asked for (sha256 "
            f"{meant[:12]}…). Connect to it anew, or open the bundle that made these images.",
        )


async def read_body(request: Request, share: Share, *, most: int, seconds: float) -> bytes:
    """All of a body of ``most`` bytes, which arrives within ``seconds``.

    What has arrived is held in ``share``, not what was announced: who only says that much will come takes no room. A
    body for which there is none is read to its end and forgotten, for else the client would not see why.
    """
    large = Refused(413, f"A request may hold {most} bytes, and this one holds more. Ask for less at a time.", HANG_UP)
    if int(request.headers.get("content-length", 0)) > most:  # h11 lets only digits through
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
        raise Refused(499, "The client has left.") from error
    except TimeoutError as error:
        raise Refused(408, f"The request did not arrive within {seconds:g} s.", HANG_UP) from error
    if full is not None:
        raise full
    return b"".join(parts)
