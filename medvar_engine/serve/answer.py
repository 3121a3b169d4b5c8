"""Responses that are sent at the speed of the client, and release their resources however they end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

BYTES = "application/octet-stream"
_PIECE = 2**18  # bytes passed to the connection at a time, so that it does not buffer the whole response


class Answer(StreamingResponse):
    """Sends ``content`` within ``seconds``, and closes ``held`` when it is sent or the client has disconnected."""

    def __init__(
        self, content: AsyncIterator[bytes], held: ExitStack, seconds: float, length: int | None = None
    ) -> None:
        super().__init__(content, media_type=BYTES, headers={} if length is None else {"Content-Length": str(length)})
        self._held, self._seconds = held, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. The response is cut if the client does not receive it in time."""
        with self._held, suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await super().__call__(scope, receive, send)

    @classmethod
    def of(cls, content: bytes, held: ExitStack, seconds: float) -> Answer:
        """A response with the bytes ``content``."""
        return cls(_pieces(content), held, seconds, len(content))

    @classmethod
    def of_file(cls, path: Path, seconds: float) -> Answer:
        """A response with the content of a file, of which only a piece is in memory at a time."""
        with ExitStack() as held:
            file = held.enter_context(path.open("rb"))
            return cls(_read(file), held.pop_all(), seconds, os.fstat(file.fileno()).st_size)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(content), _PIECE):
        yield content[first : first + _PIECE]


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await run_in_threadpool(file.read, _PIECE):
        yield piece
