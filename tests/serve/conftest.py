"""Requests to a server, byte by byte where need be."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Trace
from medvar_engine.request import Request


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    content: bytes
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        return str(json.loads(self.content)["error"])


Ask = Callable[..., Answer]


@pytest.fixture
def ask() -> Ask:
    """One request over a connection of its own."""

    def request(address: str, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = json.dumps(body).encode() if isinstance(body, dict | list) else body
        try:
            with suppress(BrokenPipeError):  # a body that is too large is refused before all of it was sent
                connection.request(method or ("GET" if body is None else "POST"), path, content, named)
            response = connection.getresponse()
            return Answer(response.status, response.read(), dict(response.headers))
        finally:
            connection.close()

    return request


@pytest.fixture
def edited(tiny_onnx: OnnxBackend) -> Callable[[int], Trace]:
    """`edited(n)`: a finished image after n edits, each of which shows the one before it outside a mask."""

    def make(count: int) -> Trace:
        generator = Generator(tiny_onnx)
        trace = generator.finish(generator.start([Request()])).trace(0)
        mask = np.zeros((16, 16), dtype=np.bool_)
        mask[4:12, 4:12] = True
        for seed in range(count):
            begun = generator.resample(trace, 3, seed=seed, mask=mask, exact_outside=True)
            trace = generator.finish(begun).trace(0)
        return trace

    return make
