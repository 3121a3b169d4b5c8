"""`make_server`: runs the application on an address, with safety checks and connection limits."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from medvar_engine.backends.base import Backend
from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.copy_risk import CopyPolicy
from medvar_engine.serve.app import make_app
from medvar_engine.serve.limits import Limits

_LOCAL = ("localhost", "127.0.0.1", "::1")
_ANY = ("0.0.0.0", "::")  # noqa: S104
_HEADERS = 5  # seconds for receiving the headers of a request
_ADDRESSES = 4  # one address can use this fraction (1 over it) of the connections without headers
_IDLE = 60  # seconds that a connection is kept open between two requests


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this computer only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_server(
    bundle: Bundle,
    backend: Backend,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    names: tuple[str, ...] = (),
    certificate: Path | None = None,
    key: Path | None = None,
    copy_policy: CopyPolicy | None = None,
) -> uvicorn.Server:
    """The server, ready to `run`. Raises `MedvarError` if other computers could use it without a token.

    ``names`` are accepted host names of requests, in addition to ``host`` and the names of this computer. With a
    certificate and its key, both in PEM format, it uses https. For ``copy_policy`` see `make_app`.
    """
    if token is None and not is_loopback(host):
        raise MedvarError(
            f"Everyone who can reach {host} could use this server. Set a token: --token-file with a file of one "
            "line, e.g. from `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        )
    if (certificate is None) != (key is None):
        raise MedvarError("A certificate needs its key: give both --certificate and --key, or neither.")
    # When the server listens on all addresses, this computer has many names; the token protects against web pages.
    hosts = () if host in _ANY and not names else (*_LOCAL, host.lower(), *(name.lower() for name in names))
    try:
        config = uvicorn.Config(
            make_app(bundle, backend, limits, token=token, hosts=hosts, copy_policy=copy_policy),
            host=host,
            port=port,
            http=_protocol(limits),
            ws="none",
            lifespan="off",
            log_level="error",  # clients could cause any number of warnings
            proxy_headers=False,  # anyone could forge them and so evade the rate limit
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=5,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        config.load()
    except OSError as error:  # ssl.SSLError is an OSError
        raise MedvarError(f"The certificate {certificate} and its key {key} cannot be used: {error}.") from error
    return uvicorn.Server(config)


def _protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Uvicorn's HTTP protocol with time limits for receiving headers and for sending responses.

    Uvicorn itself waits forever and has no setting for this, and an ASGI application is called only after the headers
    are complete. The protocol class is therefore extended and passed as uvicorn's setting ``http``; requests per minute
    are counted in the application. Before the headers arrive, it is unknown whether a client has the token, so one
    address can use only a share of the connections.
    """
    slow, share = min(limits.slow, _HEADERS), max(1, limits.connections // _ADDRESSES)
    waiting: Counter[str] = Counter()

    class TimeLimitedProtocol(H11Protocol):
        _waits: asyncio.TimerHandle | None = None
        _address = ""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if hasattr(
                socket, "TCP_USER_TIMEOUT"
            ):  # Linux only; elsewhere the connection stays open until the client closes it
                own = transport.get_extra_info("socket")
                own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * limits.seconds))
            peer = transport.get_extra_info("peername")
            self._address = str(peer[0]) if isinstance(peer, tuple) else ""
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:  # headers were received; the body has its own limit
                self._stop_waiting()
            elif self._waits is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if waiting[self._address] >= share:
                self.transport.close()
                return
            waiting[self._address] += 1
            self._waits = self.loop.call_later(slow, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._waits is not None:
                self._waits.cancel()
                self._waits = None
                waiting[self._address] -= 1
                if not waiting[self._address]:
                    del waiting[self._address]

    return TimeLimitedProtocol
