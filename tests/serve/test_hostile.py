"""What no client of ours sends is refused in a sentence, and does the server no harm."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.remote.messages import pack
from medvar_engine.serve import run_server as run
from medvar_engine.serve.limits import Limits
from medvar_engine.serve.memory_budget import MemoryBudget
from medvar_engine.serve.rate_limit import RateLimit

Served = Callable[..., str]
Ask = Callable[..., Any]
TOKEN = "a-token-of-some-length"


def floats(*shape: int, of: float = 0.0) -> Any:
    return np.full(shape, of, dtype=np.float32)


def whole(*shape: int, of: int = 0) -> Any:
    return np.full(shape, of, dtype=np.int64)


STEP = {"labels": whole(1, 3), "features": floats(1, 0, 4)}
LATENT = floats(1, 4, 4, 4)


@pytest.mark.parametrize(
    ("path", "values", "arrays", "said"),
    [
        ("step", {}, {}, "lacks the array 'labels'"),
        ("step", {}, {"labels": whole(1, 3)}, "lacks the array 'features'"),
        ("step", {"guide": True}, STEP, "has no guide"),
        ("step", {"guide": "yes"}, STEP, "must be true or false"),
        ("step", {}, STEP | {"labels": whole(1, 2)}, "must be int64 of any × 3"),
        ("step", {}, STEP | {"labels": whole(0, 3), "features": floats(0, 0, 4)}, "can have 1 to 16 rows"),
        ("step", {}, {"labels": whole(999, 3), "features": floats(999, 0, 4)}, "can have 1 to 16 rows"),
        ("step", {}, STEP | {"labels": whole(1, 3, of=-1)}, "out of range"),
        ("step", {}, STEP | {"labels": whole(1, 3, of=99)}, "out of range"),
        ("step", {}, STEP | {"features": floats(2, 0, 4)}, "must be float32 of 1 × any × 4"),
        ("step", {}, STEP | {"features": floats(1, 3, 4)}, "complete scales"),
        ("step", {}, STEP | {"features": floats(1, 400, 4)}, "complete scales"),
        ("step", {}, STEP | {"features": floats(1, 4, 4, of=np.nan)}, "finite"),
        ("summary", {}, STEP | {"features": floats(1, 4, 4, of=np.inf)}, "finite"),
        ("accumulate", {}, {"tokens": whole(1, 1)}, "'scale' must be a whole number"),
        ("accumulate", {"scale": True}, {"tokens": whole(1, 1)}, "'scale' must be a whole number"),
        ("accumulate", {"scale": 99}, {"tokens": whole(1, 1)}, "Scale 99 is out of range"),
        ("accumulate", {"scale": -1}, {"tokens": whole(1, 16)}, "Scale -1 is out of range"),
        ("accumulate", {"scale": 1}, {"tokens": whole(1, 1), "latent": LATENT}, "must be int64 of any × 4"),
        ("accumulate", {"scale": 0}, {"tokens": whole(1, 1, of=24)}, "Tokens must be within"),
        ("accumulate", {"scale": 0}, {"tokens": whole(1, 1, of=-1)}, "Tokens must be within"),
        ("accumulate", {"scale": 0}, {"tokens": whole(99, 1)}, "can have 1 to 16 rows"),
        ("accumulate", {"scale": 1}, {"tokens": whole(1, 4), "latent": floats(2, 4, 4, 4)}, "must be float32"),
        ("encode", {}, {"images": floats(1, 1, 8, 8)}, "must be float32"),
        ("encode", {}, {"images": floats(1, 1, 16, 16, of=2)}, "within [-1, 1]"),
        ("encode", {}, {"images": floats(99, 1, 16, 16)}, "can have 1 to 16 rows"),
        ("decode", {}, {"latent": floats(1, 4, 4, 4, of=np.nan)}, "finite"),
        ("decode", {}, {"latent": floats(0, 4, 4, 4)}, "can have 1 to 16 rows"),
        ("decode", {}, {"latent": whole(1, 4, 4, 4)}, "must be float32"),
    ],
)
def test_odd_arrays_are_refused(
    path: str, values: dict[str, Any], arrays: dict[str, Any], said: str, served: Served, ask: Ask
) -> None:
    """They would reach the networks, whose errors are no sentences, or take all memory."""
    answer = ask(served(), f"/{path}", pack(values, arrays))
    assert answer.status == 400
    assert said in answer.error


@pytest.mark.parametrize("path", ["step", "summary", "accumulate", "encode", "decode", "generate"])
@pytest.mark.parametrize("body", [b"", b"{", b"\x00" * 99, b"\x80\x04.", b"[" * 99_999, b"[]", b"null", b"1e999"])
def test_garbage_is_refused(path: str, body: bytes, served: Served, ask: Ask) -> None:
    """Any program that knocks would cause a traceback."""
    answer = ask(served(), f"/{path}", body, method="POST")
    assert answer.status == 400
    assert answer.error
    assert b"Traceback" not in answer.content


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "either requests"),
        ({"requests": [{}], "traces": {}}, "either requests"),
        ({"requests": []}, "1 to 16 images"),
        ({"requests": [{}] * 17}, "1 to 16 images"),
        ({"requests": {}}, "must be a list"),
        ({"requests": [3]}, "JSON object"),
        ({"requests": [{}], "script": "x"}, "Unknown field 'script'"),
        ({"requests": [{"condition": {"region": "knee"}}]}, "Unknown region 'knee'"),
        ({"requests": [{"condition": {"colour": "red"}}]}, "Unknown condition factor"),
        ({"requests": [{"condition": {"region": ["brain"]}}]}, "must be a name"),
        ({"requests": [{"condition": "brain"}]}, "JSON object"),
        ({"requests": [{"seed": -1}]}, "A seed must be"),
        ({"requests": [{"seed": 2**64}]}, "A seed must be"),
        ({"requests": [{"seed": "x"}]}, "not a request"),
        ({"requests": [{"seed": None}]}, "not a request"),
        ({"requests": [{"sampling": {"top_p": 7}}]}, "top_p must be"),
        ({"requests": [{"sampling": {"top_p": "x"}}]}, "not a request"),
        ({"requests": [{"sampling": {"eval": 1}}]}, "not a request"),
        ({"requests": [{"sampling": {"temperature": float("nan")}}]}, "NaN, which is not a JSON number"),
        ({"requests": [{"sampling": {"temperature": -1}}]}, "temperature must be"),
        ({"requests": [{"sampling": {"coarse_guidance": 3}}]}, "coarse_guidance must be"),
        ({"requests": [{"sampling": {"even_guidance": True, "coarse_guidance": 0}}]}, "not both"),
        ({"requests": [{"seed": float("inf")}]}, "Infinity, which is not a JSON number"),
        ({"requests": [{"stack": {"step": 0.1}}]}, "fields slice and step"),
        ({"requests": [{"stack": "middle"}]}, "fields slice and step"),
        ({"requests": [{"stack": {"slice": 1, "step": 0.1}}]}, "tokens of that slice are not given"),
        ({"requests": [{"stack": {"slice": 0, "step": 0.1, "before": [1]}}]}, "first slice"),
        ({"traces": {}}, "not a MedVAR trace"),
        ({"traces": []}, "JSON object"),
    ],
)
def test_odd_requests_are_refused(asked: dict[str, Any], said: str, served: Served, ask: Ask) -> None:
    """A script with a mistake would be told nothing of use."""
    answer = ask(served(), "/generate", asked)
    assert (answer.status, said in answer.error) == (400, True), answer.error


def test_too_much_is_refused(served: Served, ask: Ask) -> None:
    """One request would take all memory; also one that does not say how long it is."""
    address = served(Limits(body=1000))
    assert ask(address, "/step", bytes(1001)).status == 413
    assert ask(address, "/step", iter([bytes(600)] * 2)).status == 413  # in chunks
    assert ask(address, "/step", bytes(900)).status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/bundle/step.onnx",
        "/bundle/../bundle.json",
        "/bundle/..%2f..%2fetc%2fpasswd",
        "/bundle/%2e%2e/%2e%2e/etc/passwd",
        "/bundle/..\\..\\etc\\passwd",
        "/bundle//etc/passwd",
        "/bundle/",
        "/bundle/bundle.json%00.png",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
def test_other_paths_do_not_exist(path: str, served: Served, ask: Ask) -> None:
    """The weights, or any file of the computer, could be read."""
    answer = ask(served(), path)
    assert answer.status == 404
    assert answer.error


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[", "a@127.0.0.2"]
)
def test_requests_for_another_host_are_refused(host: str, served: Served, ask: Ask) -> None:
    """A page on the web could use the server of whoever looks at it, by a name that leads to 127.0.0.1."""
    assert ask(served(), "/model", Host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8765", "[::1]:8765", "gpu.example"])
def test_names_of_the_computer_are_accepted(host: str, served: Served, ask: Ask) -> None:
    """Nobody could connect by the computer's name."""
    assert ask(served(names=("gpu.example",)), "/model", Host=host).status == 200


def test_pages_in_a_browser_are_refused(served: Served, ask: Ask) -> None:
    """A page on the web could make the GPU work, though not see the result."""
    answer = ask(served(), "/generate", {"requests": [{}]}, Origin="http://evil.example")
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/model", "/bundle/bundle.json", "/step", "/generate", "/nothing"])
@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}é"])
def test_without_the_token_everything_is_refused(path: str, sent: str | None, served: Served, ask: Ask) -> None:
    """Whoever finds the port could use the server, or learn what it holds."""
    address = served(token=TOKEN)
    answer = ask(address, path, **({} if sent is None else {"Authorization": sent}))
    assert answer.status == 401
    assert "requires a token" in answer.error
    assert ask(address, "/model", Authorization=f"Bearer {TOKEN}").status == 200


def test_other_computers_need_a_token(tiny_bundle: Any, tiny_onnx: OnnxBackend) -> None:
    """Anyone in the network could use a server that was bound to all addresses by habit."""
    bundle: Bundle = read_bundle(tiny_bundle)
    for host in ("0.0.0.0", "::", "192.168.0.7", "gpu.example"):
        with pytest.raises(MedvarError, match="Set a token"):
            run.make_server(bundle, tiny_onnx, Limits(), host=host)


def test_requests_per_client_are_limited(served: Served, ask: Ask) -> None:
    """One client would leave no room for the others; or tokens could be tried out without end."""
    address = served(Limits(rate=3), token=TOKEN)
    assert [ask(address, "/model").status for _ in range(4)] == [401, 401, 401, 429]
    answer = ask(address, "/model", Authorization=f"Bearer {TOKEN}")
    assert (answer.status, answer.headers["retry-after"]) == (429, "20")


def test_rates_recover() -> None:
    """A client that was too fast once would be shut out for ever."""
    now = [0.0]
    limit = RateLimit(2, lambda: now[0])
    took = []
    for now[0] in (0, 0, 0, 31, 31, 1000, 1000, 1000):
        try:
            limit.take("me")
            took.append(True)
        except MedvarError:
            took.append(False)
    assert took == [True, True, False, True, False, True, True, False]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /model HT",
        b"POST /step HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /step HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 100\r\n\r\nabc",
    ],
)
def test_slow_clients_are_disconnected(sent: bytes, served: Served, ask: Ask) -> None:
    """A few hundred connections that send a byte now and then would lock everybody else out."""
    address = served(Limits(slow=0.3))
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as slow:
        slow.sendall(sent)
        answer = b"".join(iter(lambda: slow.recv(4096), b""))
    assert not answer or answer.split()[1] in (b"408", b"421")
    assert ask(address, "/model").status == 200


def test_headers_that_come_drop_by_drop_are_cut_off_on_a_used_connection(served: Served) -> None:
    """The first good request would buy a slow client all the time it wants."""
    parts = urlsplit(served(Limits(slow=0.3)))
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", "/model")
    assert connection.getresponse().read()
    connection.sock.sendall(b"GET /model HTTP/1.1\r\n")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        _drip(connection.sock)
    connection.close()


def _drip(slow: socket.socket) -> None:
    for _ in range(200):
        slow.sendall(b"X: 1\r\n")
        time.sleep(0.05)


def test_an_unexpected_error_reveals_nothing_about_the_server(
    served: Served, ask: Ask, tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths and code of the server would be shown to strangers."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret path /home/me")

    monkeypatch.setattr(tiny_onnx, "step", broken)
    answer = ask(served(), "/step", pack({}, STEP))
    assert answer.status == 500
    assert json.loads(answer.content) == {
        "error": "An error occurred in the server; its log has the details. The request may be sent again."
    }


def test_a_job_ends_in_time(served: Served, ask: Ask, tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that computes many scales anew would hold up all others."""
    step = tiny_onnx.step

    def slow(state: Any, *more: Any) -> Any:
        time.sleep(0.3)
        return step(state, *more)

    monkeypatch.setattr(tiny_onnx, "step", slow)
    answer = ask(served(Limits(seconds=0.2)), "/step", pack({}, STEP | {"features": floats(1, 13, 4)}))
    assert answer.status == 504
    assert "longer than the 0.2 s" in answer.error


def _unfinished(address: str, path: str, size: int, client: str = "127.0.0.1") -> socket.socket:
    """A connection of ``client`` whose request lacks its last byte."""
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=20, source_address=(client, 0))
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
    with contextlib.suppress(OSError):  # refused on the way
        connection.sendall(bytes(size - 1))
    return connection


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> list[MemoryBudget]:
    """What the servers of this test hold, to know when all that was sent has arrived."""
    from medvar_engine.serve import app

    made: list[MemoryBudget] = []

    def noted(most: int) -> MemoryBudget:
        made.append(MemoryBudget(most))
        return made[-1]

    monkeypatch.setattr(app, "MemoryBudget", noted)
    return made


def _until_held(memory: MemoryBudget, count: int) -> None:
    until = time.monotonic() + 60
    while memory.held != count:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_large_bodies_leave_room_for_others(served: Served, ask: Ask, memories: list[MemoryBudget]) -> None:
    """One client could take the server's memory by large requests, a few hundred at a time, or shut out the others."""
    address = served(Limits(memory=4 * 2**20, body=2**20, slow=600))
    with contextlib.ExitStack() as large:
        for _ in range(4):  # of which two find room
            large.enter_context(_unfinished(address, "/step", 2**20))
        _until_held(memories[0], 2 * (2**20 - 1))
        answer = ask(address, "/step", bytes(900))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert ask(address, "/model").status == 200
        with _unfinished(address, "/step", 100, "127.0.0.2") as other:
            other.sendall(bytes(1))
            assert other.recv(4096).startswith(b"HTTP/1.1 400")  # garbage, but it was read
    _until_held(memories[0], 0)
    assert ask(address, "/step", bytes(2**20)).status == 400


def test_others_are_answered_while_a_request_is_read(served: Served, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large request, as it is parsed, would stop the streams of all others."""
    from medvar_engine.serve import app

    parsing, go_on = threading.Event(), threading.Event()

    def slowly(content: bytes, **more: Any) -> Any:
        parsing.set()
        assert go_on.wait(20)
        raise MedvarError("It was garbage.")

    monkeypatch.setattr(app, "unpack", slowly)
    monkeypatch.setattr(app, "parsed", slowly)
    address = served()
    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(ask, address, path, b"x", method="POST") for path in ("/step", "/generate")]
        assert parsing.wait(20)
        assert ask(address, "/model").status == 200
        go_on.set()
        assert [answer.result().status for answer in reading] == [400, 400]


def test_text_that_grows_as_it_is_read_is_refused(served: Served, ask: Ask) -> None:
    """Two megabytes of brackets take a hundred times as much when they are read, and all others wait for that."""
    address = served()
    assert ask(address, "/generate", b"[" + b"[]," * 2**20 + b"[]]", method="POST").status == 413
    answer = ask(address, "/step", b'{"a":[' + b"[]," * 2**15 + b'[]],"arrays":[]}\n', method="POST")
    assert (answer.status, "too long" in answer.error) == (400, True)


def test_lineages_are_bounded(served: Served, ask: Ask, edited: Callable[[int], Any]) -> None:
    """A request of a few bytes an edit would ask for hours of decoding."""
    from medvar_engine.generate.trace import traces_to_dict

    asked = {"traces": traces_to_dict([edited(4)])}
    assert ask(served(Limits(lineage=5)), "/generate", asked).status == 200
    answer = ask(served(Limits(lineage=4)), "/generate", asked)
    assert (answer.status, "these have 5" in answer.error) == (400, True)


def test_answers_count_before_they_are_made(served: Served, ask: Ask, memories: list[MemoryBudget]) -> None:
    """Clients that ask for much and never take it would fill the server's memory."""
    address = served(Limits(memory=20_000, slow=600))
    wish = pack({}, {"labels": whole(16, 3), "features": floats(16, 4, 4)})
    with _unfinished(address, "/step", 5_000):  # leaves less than the logits of four tokens of sixteen images take
        _until_held(memories[0], 4_999)
        answer = ask(address, "/step", wish)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    _until_held(memories[0], 0)
    assert ask(address, "/step", wish).status == 200


def test_half_sent_headers_of_one_address_leave_room_for_others(served: Served, ask: Ask) -> None:
    """Somebody without a token would keep everybody out by opening connections and saying nothing."""
    address = served(Limits(connections=16, slow=600))
    parts = urlsplit(address)
    with contextlib.ExitStack() as held:
        for _ in range(40):
            one = held.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
            with contextlib.suppress(OSError):
                one.sendall(b"GET /model HTTP/1.1\r\nHost: loc")
        time.sleep(0.3)
        holding = []
        for _ in range(3):  # other addresses are let in; this one again as soon as it has been cut off
            with contextlib.suppress(OSError, http.client.HTTPException):
                holding.append(ask(address, "/model").status)
        deadline = time.monotonic() + 20
        while 200 not in holding and time.monotonic() < deadline:
            time.sleep(0.5)
            with contextlib.suppress(OSError, http.client.HTTPException):
                holding.append(ask(address, "/model").status)
        assert 200 in holding
        assert 503 not in holding
