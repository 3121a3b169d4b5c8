"""`medvar serve`, and `medvar generate --server`, as a person calls them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.cli.main import main
from medvar_engine.generate.generator import Generator
from medvar_engine.remote.connection import Server
from medvar_engine.request import Request
from medvar_engine.types import FloatArray

TOKEN = "a-token-of-some-length"


@pytest.fixture
def medvar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["medvar", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def test_generated_files_equal_local_ones(
    served: Callable[..., str], tiny_bundle: Path, tmp_path: Path, medvar: Callable[..., tuple[int, str]]
) -> None:
    """A file made on a server could not be replayed from its bundle."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    wish = ["generate", "--modality", "CT", "--count", 3, "--show-scales"]
    here, there = tmp_path / "here", tmp_path / "there"
    assert medvar(*wish, "--bundle", tiny_bundle, "--out", here, "--device", "cpu")[0] == 0
    assert medvar(*wish, "--server", served(token=TOKEN), "--token-file", token, "--out", there)[0] == 0
    names = sorted(path.name for path in here.iterdir())
    assert len(names) == 6
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes()


def test_copies_of_training_slices_are_withheld_here_too(
    served: Callable[..., str],
    tiny_onnx: OnnxBackend,
    gated: Callable[[Path, FloatArray], Path],
    tmp_path: Path,
    medvar: Callable[..., tuple[int, str]],
) -> None:
    """A patient's slice would be written, because the bundle that knows it is elsewhere."""
    generator = Generator(tiny_onnx)
    copies = generator.image(generator.finish(generator.start([Request()])))
    address, out = served(bundle=gated(tmp_path / "gated", copies)), tmp_path / "out"
    wish = ["generate", "--server", address, "--guidance", 1.5, "--temperature", 1, "--top-k", 0, "--top-p", 0.96]
    code, told = medvar(*wish, "--out", out)
    assert (code, "Nothing was written" in told) == (1, True), told
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "--server", "http://127.0.0.1:1"), "cannot be reached"),
        (("generate", "--server", "localhost"), "The address of a server must be like"),
        (("generate", "--server", "http://a", "--bundle", "demo"), "leave out --bundle or --server"),
        (("generate", "--server", "http://127.0.0.1:1", "--token-file", "nothing"), "Cannot read the token file"),
        (("serve", "--host", "0.0.0.0"), "Set a token"),
        (("serve", "--certificate", "nothing.pem"), "both --certificate and --key"),
        (("serve", "--certificate", "nothing.pem", "--key", "nothing.pem"), "cannot be used"),
        (("serve", "--token-file", "nothing"), "Cannot read the token file"),
        (("serve", "--bundle", "nothing"), "is not a bundle"),
    ],
)
def test_mistakes_are_reported(arguments: tuple[str, ...], said: str, medvar: Callable[..., tuple[int, str]]) -> None:
    """A mistyped option would be a traceback, or a server that is open to all."""
    code, told = medvar(*arguments)
    assert (code, said in told) == (1, True), told


def test_sets_are_made_where_their_bundle_is(
    served: Callable[..., str], tmp_path: Path, medvar: Callable[..., tuple[int, str]]
) -> None:
    """A set would be made by the shipped bundle, though another was asked for."""
    code, told = medvar("generate", "--server", served(), "--layout", "shards", "--out", tmp_path / "set")
    assert (code, "without --server" in told) == (1, True), told
    assert not (tmp_path / "set").exists()


def test_it_runs_until_it_is_interrupted(tiny_bundle: Path, tmp_path: Path) -> None:
    """The command itself could not start, say what it is, or be ended; a taken port would be a traceback."""
    import signal
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "medvar_engine.cli", "serve", "--bundle", str(tiny_bundle), "--device", "cpu"]
    with (tmp_path / "log").open("w+b") as log:
        server = subprocess.Popen([*command, "--port", port], stderr=log, env=os.environ)
        try:
            until = time.monotonic() + 60
            while socket.socket().connect_ex(("127.0.0.1", int(port))):
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            model = Server(f"http://127.0.0.1:{port}").get_json("model")["model"]
            assert model == read_bundle(tiny_bundle).bundle_id
            second = subprocess.run([*command, "--port", port], capture_output=True, timeout=60, check=False)
            assert second.returncode == 1
            assert b"Cannot listen" in second.stderr
            assert b"Traceback" not in second.stderr
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        log.seek(0)
        said = log.read()
    assert server.returncode in (0, 130)
    assert f"tiny on ONNX Runtime, CPUExecutionProvider at http://127.0.0.1:{port}".encode() in said
    assert b"Traceback" not in said


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX'")
def test_a_token_that_others_may_read_is_refused(tmp_path: Path, medvar: Callable[..., tuple[int, str]]) -> None:
    """Whoever else works on that computer could use the server."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    for call in (("serve",), ("generate", "--server", "http://127.0.0.1:1")):
        code, said = medvar(*call, "--token-file", token)
        assert (code, f"chmod 600 {token}" in said) == (1, True)
