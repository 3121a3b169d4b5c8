"""A backend on another computer makes what one here makes."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.backends.base import PrefixState
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Graft
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_cache import PrefixCache
from medvar_engine.generate.replay import replay
from medvar_engine.remote.connection import Server, read_token
from medvar_engine.remote.remote_backend import RemoteBackend
from medvar_engine.request import Request, Sampling
from medvar_engine.serve.limits import Limits
from medvar_engine.types import FloatArray

Served = Callable[..., str]

CHEST, BRAIN = Condition("CT", "chest"), Condition("MR", "brain", "axial")
TOKEN = "a-token-of-some-length"


def remote(address: str, token: str | None = None) -> Generator:
    return Generator(RemoteBackend(Server(address, token, patience=30)))


def asked(count: int = 3) -> list[Request]:
    sampling = [Sampling(guidance=2.0), Sampling(guidance=0.0, temperature=0.7), Sampling(top_k=5)]
    return [Request((CHEST, BRAIN)[i % 2], seed=i, sampling=sampling[i % 3]) for i in range(count)]


def assert_same(one: Generation, other: Generation) -> None:
    assert one.pyramid == other.pyramid
    for mine, theirs in zip(one.entropy, other.entropy, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(one.latents, other.latents, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_images_are_those_of_a_local_backend_bit_by_bit(served: Served, tiny_onnx: OnnxBackend) -> None:
    """The same seed would give another image as soon as the GPU is elsewhere."""
    here, there = Generator(tiny_onnx), remote(served())
    assert_same(one := here.finish(here.start(asked())), other := there.finish(there.start(asked())))
    for k in range(one.depth):
        np.testing.assert_array_equal(here.preview(one, k), there.preview(other, k))


def test_all_that_starts_from_an_earlier_image_is_the_same(served: Served, tiny_onnx: OnnxBackend) -> None:
    """Candidates, edits, inversion or replay would need the networks here."""
    made = []
    for generator in (Generator(tiny_onnx), remote(served())):
        first, second = generator.finish(generator.start(asked(2))).traces
        mask = np.zeros((16, 16), dtype=np.bool_)
        mask[:8] = True
        many = generator.finish(generator.resample_many(first, 2, [5, 6, 7], mask=mask))
        by_hand = generator.finish(generator.with_token(first, 1, 0, 1, 3))
        graft = generator.edit(first, Graft(2, second))
        other = generator.finish(generator.resample(first, 1, condition=BRAIN, inversion=generator.invert(first)))
        again = replay(generator, by_hand.trace(0))
        made.append([many, by_hand, graft, other, again])
    for one, two in zip(*made, strict=True):
        assert_same(one, two)


def test_reading_and_encoding_are_the_same(served: Served, tiny_onnx: OnnxBackend) -> None:
    """Maps, features and real images would not work on a server."""
    image = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16)).astype(np.float32)
    here, there = Generator(tiny_onnx), remote(served())
    one, two = here.encode(image, asked(2)), there.encode(image, asked(2))
    assert_same(one, two)
    np.testing.assert_array_equal(here.anomaly_map(one), there.anomaly_map(two))
    np.testing.assert_array_equal(here.features(one), there.features(two))


def test_bundle_and_codebook_come_along(served: Served, tiny_onnx: OnnxBackend, tiny_bundle: Path) -> None:
    """Files would lack units and spacing, and the plugin the model's card and the tokens that are alike."""
    backend, bundle = RemoteBackend(Server(served())), read_bundle(tiny_bundle)
    assert (backend.bundle.name, backend.bundle.slice_types, backend.bundle.card) == (
        bundle.name,
        bundle.slice_types,
        bundle.card,
    )
    assert backend.codebook is not None
    np.testing.assert_array_equal(backend.codebook, bundle.codebook())
    assert (backend.info.bundle_id, backend.info.weights) == (tiny_onnx.info.bundle_id, tiny_onnx.info.weights)
    assert "CPUExecutionProvider at http://127.0.0.1" in backend.info.provider


def test_more_images_than_a_request_may_hold(served: Served, tiny_onnx: OnnxBackend) -> None:
    """A batch would be refused, or come back in another order."""
    here, there = Generator(tiny_onnx), remote(served(Limits(rows=3)))
    one, two = here.finish(here.start(asked(7))), there.finish(there.start(asked(7)))
    assert one.pyramid == two.pyramid
    np.testing.assert_allclose(here.image(one), there.image(two), atol=1e-5)


@pytest.fixture
def scales(tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scales that are computed, one after the other."""
    computed: list[int] = []
    step = tiny_onnx.step

    def noted(state: PrefixState, *more: Any) -> tuple[FloatArray, PrefixState]:
        computed.append(state.depth)
        return step(state, *more)

    monkeypatch.setattr(tiny_onnx, "step", noted)
    return computed


def test_prefixes_lost_by_the_server_are_computed_again(
    served: Served, tiny_onnx: OnnxBackend, scales: list[int]
) -> None:
    """An image would break off, or change, when the server's memory is short."""
    address = served(Limits(cache=2))
    here, there, between = Generator(tiny_onnx), remote(address), remote(address)
    one = here.finish(here.start(asked(1)))
    other = there.start(asked(1))
    for _ in range(4):
        del scales[:]
        other = there.step(other)
        between.step(between.start(asked(2)[1:]))  # the newest prefix is kept, and now is this one
    assert_same(one, other)
    assert scales == [0, 1, 2, 3, 0]


def test_the_server_remembers_prefixes(served: Served, scales: list[int]) -> None:
    """Each scale would cost all scales before it."""
    there = remote(served())
    there.finish(there.start(asked(1)))
    assert scales == [0, 1, 2, 3]


def test_clients_at_the_same_time_get_their_own_images(served: Served, tiny_onnx: OnnxBackend) -> None:
    """One user would be shown the image of another; or an answer would never come while the server is busy."""
    address, here = served(Limits(waiting=2)), Generator(tiny_onnx, PrefixCache())

    def make(seed: int) -> Generation:
        there = remote(address)
        return there.finish(there.start([Request(CHEST, seed=seed)]))

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(make, range(12)))
    for seed, one in enumerate(made):
        assert_same(one, here.finish(here.start([Request(CHEST, seed=seed)])))


def test_threads_share_one_backend(served: Served, tiny_onnx: OnnxBackend) -> None:
    """The plugin's previews would tear apart the connection of the image that is being made."""
    backend, here = RemoteBackend(Server(served())), Generator(tiny_onnx)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda seed: _finished(Generator(backend), seed), range(8)))
    for seed, one in enumerate(made):
        assert_same(one, _finished(here, seed))


def _finished(generator: Generator, seed: int) -> Generation:
    return generator.finish(generator.start([Request(BRAIN, seed=seed)]))


def test_the_token_grants_access(served: Served, tmp_path: Path) -> None:
    """Whoever guesses the address could use the server, or whoever has the token could not."""
    address, file = served(token=TOKEN), tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(f"{TOKEN}\n")
    there = remote(address, read_token(file))
    assert there.step(there.start(asked(1))).depth == 1
    for token in (None, TOKEN[:-1], TOKEN + "x"):
        with pytest.raises(MedvarError, match="requires a token"):
            remote(address, token)


@pytest.mark.parametrize("content", [b"", b"short\n", b"a token with spaces in it\n", b"\xff" * 40])
def test_token_files_are_checked(content: bytes, tmp_path: Path) -> None:
    """An empty file would be a token that everyone knows."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(MedvarError, match="token"):
        read_token(file)
    with pytest.raises(MedvarError, match="Cannot read the token file"):
        read_token(tmp_path / "nothing")


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:8765", "ftp://a", "http://", "http://a:b", "http://a b", "http://u:p@a", "http://a\r\nX: 1"],
)
def test_addresses_are_checked(address: str) -> None:
    """A mistyped address would be a traceback, or smuggle in a header."""
    with pytest.raises(MedvarError, match="The address of a server must be like"):
        Server(address)


def test_a_missing_server_is_reported() -> None:
    """A user would wait, or read a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(MedvarError, match="cannot be reached"):
            RemoteBackend(Server(f"http://127.0.0.1:{taken.getsockname()[1]}"))


def test_a_server_that_was_restarted_is_found_again(served: Served, tiny_onnx: OnnxBackend) -> None:
    """The connection of a long session is cut by whatever lies between; the session would be lost with it."""
    here, there = Generator(tiny_onnx), remote(served())
    one, other = here.step(here.start(asked(1))), there.step(there.start(asked(1)))
    connection = there.backend._server._connection  # type: ignore[attr-defined]
    connection.sock.shutdown(socket.SHUT_RDWR)
    assert_same(here.finish(one), there.finish(other))


def test_another_model_at_the_address_is_reported(served: Served, tiny_onnx: OnnxBackend, monkeypatch: Any) -> None:
    """A server restarted with another bundle would go on with tokens that mean nothing to it."""
    there = remote(served())
    generation = there.step(there.start(asked(1)))
    from dataclasses import replace

    monkeypatch.setattr(tiny_onnx, "info", replace(tiny_onnx.info, bundle_id="cd" * 32))
    with pytest.raises(MedvarError, match="has another model"):
        there.step(generation)


def test_https_is_used_and_unknown_certificates_are_refused(
    served: Served, tiny_onnx: OnnxBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token and images could be read on the way, or by someone who says to be the server."""
    import trustme

    authority = trustme.CA()
    certificate, key, trusted = tmp_path / "certificate.pem", tmp_path / "key.pem", tmp_path / "trusted.pem"
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(part.bytes() for part in own.cert_chain_pems))
    authority.cert_pem.write_to_path(trusted)
    address = served(certificate=certificate, key=key)
    with pytest.raises(MedvarError, match="certificate"):
        remote(address)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert ssl.create_default_context().cert_store_stats()["x509_ca"]
    here, there = Generator(tiny_onnx), remote(address)
    assert_same(here.step(here.start(asked(1))), there.step(there.start(asked(1))))


@pytest.fixture
def answering() -> Iterator[Callable[[bytes, dict[str, str]], str]]:
    """Servers that are not ours: each answers whatever is asked with the same bytes."""
    running = []

    def start(content: bytes, headers: dict[str, str]) -> str:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"<html>", {}),
        (b"[]", {}),
        (b"{}", {}),
        (b'{"medvar_serve": 99}', {}),
        (b'{"medvar_serve": 1}', {}),
        (b"[" * 100_000, {}),
        (b"{}", {"Content-Length": "100"}),
        (b"zz\r\n", {"Transfer-Encoding": "chunked"}),
    ],
)
def test_other_servers_are_reported(
    content: bytes, headers: dict[str, str], answering: Callable[[bytes, dict[str, str]], str]
) -> None:
    """A wrong port would be a traceback."""
    with pytest.raises(MedvarError, match=r"127\.0\.0\.1|bundle"):
        RemoteBackend(Server(answering(content, headers), patience=5))


def test_a_request_refused_before_all_of_it_was_sent() -> None:
    """Breaks for large requests: "broken pipe" would hide what the server says, and the request be sent twice."""
    content = b'{"error": "A request may have at most 1000 bytes."}'
    head = f"HTTP/1.1 413 Too Large\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
    asked_for = []

    def refuse() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                asked_for.append(connection.recv(1000))
                connection.sendall(head + content)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=refuse, daemon=True).start()
        server = Server(f"http://127.0.0.1:{listening.getsockname()[1]}", patience=5)
        arrays = {"labels": np.zeros(2**22, np.int64)}
        with pytest.raises(MedvarError, match="at most 1000 bytes"):
            server.call("step", {}, arrays, model="ab", limit=1000)
    assert len(asked_for) == 1
