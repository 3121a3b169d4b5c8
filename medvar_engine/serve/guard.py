"""`Guard`: who may ask at all. It looks at a request's headers only, before anything of its body is read."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from medvar_engine.serve.limits import HANG_UP, Refused

_MOST_CLIENTS = 10_000  # whose rate is known


class Guard:
    """Refuses what no client of ours sends, too many requests of one client, and requests without the token.

    Args:
        app: what comes behind.
        token: None where none is needed.
        hosts: names of this server that a request may be addressed to; empty for any. A page on the web can make a
            name of its own lead to 127.0.0.1 (DNS rebinding), but not forge this.
        rate: requests a minute of one client, by its address.
        clock: seconds.
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
        self._rates = _Rates(rate, clock)

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
        self._rates.take(client[0] if client else "")
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
                    f"This server asks for a token, and {said}. Give the file with the server's token: --token-file, "
                    "or the plugin's setting.",
                    {"WWW-Authenticate": "Bearer"},
                )


class _Rates:
    """A bucket for each client, that holds a minute's requests and fills up steadily."""

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → (requests left, when)

    def take(self, client: str) -> None:
        now = self._clock()
        left, then = self._buckets.pop(client, (float(self._rate), now))
        left = min(self._rate, left + (now - then) * self._rate / 60)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            wait = max(1, round(60 / self._rate))
            text = (
                f"Too many requests: {self._rate} a minute are allowed. Wait, or start the server with a higher --rate."
            )
            raise Refused(429, text, {"Retry-After": str(wait)})


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return header
