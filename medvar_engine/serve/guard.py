"""`Guard`: refuses requests by their headers, before anything of their body is read."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from medvar_engine.serve.limits import HANG_UP, Refused
from medvar_engine.serve.rate_limit import RateLimit


class Guard:
    """Refuses requests from web pages, for other hosts, without the token, and too many requests of one client.

    Args:
        app: the application behind the guard.
        token: None if no token is required.
        hosts: accepted names in the Host header; empty accepts any. A web page can make its own name point to
            127.0.0.1 (DNS rebinding), but cannot forge this header.
        rate: requests per minute of one client address.
        clock: gives seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        hosts: Collection[str],
        rate: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._hosts = app, hosts
        self._expected = f"Bearer {token}".encode() if token else None
        self._rate_limit = RateLimit(rate, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            if scope["type"] == "http":
                self._check(scope)
        except Refused as refused:
            response = JSONResponse({"error": refused.text}, refused.status, {**refused.headers, **HANG_UP})
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        client = scope.get("client")
        self._rate_limit.take(client[0] if client else "")
        host = _host(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            raise Refused(421, f"This server is not {host!r}. Start it with `--name {host}` if it is.")
        if "origin" in headers:
            raise Refused(403, "Pages in a browser may not use this server.")
        if self._expected is not None:
            given = headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, self._expected):
                said = "a wrong token was sent" if given else "none was sent"
                raise Refused(
                    401,
                    f"This server requires a token, but {said}. Give the file with the server's token: --token-file, "
                    "or the plugin's setting.",
                    {"WWW-Authenticate": "Bearer"},
                )


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return header
