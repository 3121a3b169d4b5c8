"""`Server`: the client's connection to a `medvar serve`. It uses the standard library only."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.remote.messages import Message, pack, read_message, unpack
from medvar_engine.untrusted import plain_json

PROTOCOL = 2
MODEL_HEADER = (
    "Medvar-Model"  # header with the model that a client expects, so that a server with another model can refuse
)
_BUSY = (429, 503)
_LARGEST_FILE = 2**30  # bytes of a file of a bundle other than its graphs
_SHORTEST_TOKEN = 16
_CONNECT = 10  # seconds
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LOST = (ConnectionError, ssl.SSLEOFError)  # the server has closed the connection


class Server:
    """A server's address and one connection to it. Calls from several threads wait for each other.

    Args:
        address: ``http://127.0.0.1:8765`` or ``https://…``.
        token: the access token, see `read_token`.
        patience: seconds to wait for a response, and to try again while the server is busy.
    """

    def __init__(self, address: str, token: str | None = None, *, patience: float = 120) -> None:
        self.address = address.rstrip("/")
        parts = _parts(self.address)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 8765)
        self._folder = parts.path  # path prefix of a reverse proxy
        if token and not self._tls and self._host not in _LOOPBACK:
            raise MedvarError(
                f"The connection to {self.address} is not encrypted, so others could read the token. Use https://, "
                "or an SSH tunnel to the server and http://127.0.0.1."
            )
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._patience = patience
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> bytes:
        """The content at ``path``. Raises `MedvarError` if it cannot be read."""
        return self._whole("GET", path, None, {}, _LARGEST_FILE)

    def get_json(self, path: str) -> dict[str, Any]:
        """The JSON object at ``path``. Raises `MedvarError` for anything else."""
        try:
            values = plain_json.loads(self.get(path))
        except (ValueError, RecursionError) as error:
            raise self._odd("its answer is not JSON") from error
        if not isinstance(values, dict):
            raise self._odd("its answer is not a JSON object")
        return values

    def call(
        self, path: str, values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], *, model: str, limit: int
    ) -> Message:
        """Send a message and return the answer, with at most ``limit`` bytes of arrays."""
        headers = {"Content-Type": "application/octet-stream", MODEL_HEADER: model}
        return unpack(self._whole("POST", path, pack(values, arrays), headers, limit + 2**20))

    def stream(self, path: str, values: Mapping[str, Any], *, limit: int = 2**30) -> Iterator[Message]:
        """Send values and yield the messages of the answer as they arrive; closing the iterator stops the work.

        The arrays of each message may have at most ``limit`` bytes. A separate connection is used.
        """
        body = json.dumps(values, allow_nan=False).encode()
        connection = self._connect()
        try:
            response = self._answered(connection, "POST", path, body, {"Content-Type": "application/json"})
            while (message := read_message(response, limit)) is not None:
                if "error" in message.values:
                    raise MedvarError(str(message.values["error"]))
                yield message
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connection. The next call connects again."""
        with self._lock:
            self._hang_up()

    # -- internals --------------------------------------------------------------------------------------------------

    def _whole(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], limit: int) -> bytes:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                try:
                    response = self._answered(self._connection, method, path, body, headers)
                except _LOST:  # an idle connection was closed; all requests may be sent twice
                    self._hang_up()
                    self._connection = self._connect()
                    response = self._answered(self._connection, method, path, body, headers)
                content = response.read(limit + 1)
                if len(content) > limit:
                    raise self._odd(f"its answer is longer than {limit} bytes")
                if response.length:
                    raise self._unreachable("it closed the connection during its answer")
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                raise self._unreachable(error) from error
            except MedvarError:
                self._hang_up()
                raise
            return content

    def _answered(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        """The successful response to a request; tries again while the server is busy."""
        until = time.monotonic() + self._patience
        while True:
            response = _sent(connection, method, f"{self._folder}/{path}", body, {**self._headers, **headers})
            if response.status == 200:
                return response
            text = self._complaint(response)
            wait = _seconds(response.getheader("Retry-After"))
            if response.status not in _BUSY or time.monotonic() + wait > until:
                raise MedvarError(text)
            connection.close()  # it may have been refused before all of it was sent; the next request connects again
            time.sleep(wait)

    def _complaint(self, response: http.client.HTTPResponse) -> str:
        """The error message of the server."""
        content = response.read(2**20)
        try:
            return str(plain_json.loads(content)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return (
                f"{self.address} answered with status {response.status} ({response.reason}). Check that it is the "
                "address of a `medvar serve`."
            )

    def _connect(self) -> http.client.HTTPConnection:
        wait = min(_CONNECT, self._patience)
        if self._tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=wait, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=wait)
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error) from error
        connection.timeout = self._patience
        connection.sock.settimeout(self._patience)
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _unreachable(self, why: object) -> MedvarError:
        return MedvarError(
            f"The server {self.address} cannot be reached: {why}. Check the address, and that `medvar serve` is "
            "running there."
        )

    def _odd(self, why: str) -> MedvarError:
        return MedvarError(f"{self.address} does not answer as `medvar serve` does: {why}. Check the address.")


def read_token(path: Path) -> str:
    """The token in the first line of a file, for server and client. Raises `MedvarError` for an unsuitable file."""
    try:
        if not path.is_file():
            raise MedvarError(f"Cannot read the token file {path}: it does not exist, or is not a file.")
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise MedvarError(f"Other users can read the token in {path} and use it. Run: chmod 600 {path}")
        with path.open("rb") as file:
            token = file.readline(4096).decode("ascii").strip()
    except OSError as error:
        raise MedvarError(f"Cannot read the token file {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise MedvarError(f"The token in {path} must consist of ASCII letters and digits.") from error
    if len(token) < _SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise MedvarError(
            f"The token in {path} must be at least {_SHORTEST_TOKEN} characters without spaces. Make one: "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        )
    return token


def _sent(
    connection: http.client.HTTPConnection, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    """The response to a request, even if the server answers and hangs up before all of the request was sent."""
    try:
        connection.request(method, url, body, headers)
    except _LOST as error:
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise error from None
    return connection.getresponse()


def _parts(address: str) -> Any:
    wrong = f"The address of a server must be like http://127.0.0.1:8765 or https://host, but is {address!r}."
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise MedvarError(wrong) from error
    if not fine or parts.username or parts.query or parts.fragment or not address.isprintable() or " " in address:
        raise MedvarError(wrong)
    return parts


def _seconds(text: str | None) -> float:
    """The seconds of a ``Retry-After`` header; a tenth of a second if it is missing or invalid."""
    try:
        return min(10.0, max(0.1, float(text or 0)))
    except ValueError:
        return 0.1
