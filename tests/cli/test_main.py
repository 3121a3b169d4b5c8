"""What is common to all verbs: help, exit codes, and no tracebacks for what a person can put right."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import medvar_engine
from medvar_engine.cli.console import harmless

VERBS = ("prepare", "train", "export", "generate", "info", "import-var")


def test_the_command_runs_by_itself() -> None:
    """`medvar --help` in a fresh terminal would fail or not name what it can do."""
    call = [sys.executable, "-m", "medvar_engine.cli", "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_exit_codes_and_streams_of_a_process(tmp_path: Any) -> None:
    """Scripts that call medvar could not tell that it failed, or would read its error as a result."""
    call = [sys.executable, "-m", "medvar_engine.cli", "info", str(tmp_path / "nowhere")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help(medvar: Callable[..., Any], verb: str) -> None:
    """Nobody could find out what a verb takes."""
    run = medvar(verb, "--help")
    assert run.code == 0
    assert "Usage: medvar " + verb in run.out
    assert "--help" in run.out


def test_help_without_arguments(medvar: Callable[..., Any]) -> None:
    """A bare `medvar` would do nothing at all."""
    run = medvar()
    assert all(verb in run.out + run.err for verb in VERBS)


def test_version(medvar: Callable[..., Any]) -> None:
    """A bug report could not say which version it is about."""
    assert medvar("--version").lines == [medvar_engine.__version__]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nonsense",), "--nonsense"),
        (("draw",), "draw"),
        (("generate", "--colour", "red"), "--colour"),
        (("generate", "--count", "none"), "count"),
        (("generate", "--count", "0"), "count"),
        (("generate", "--format", "jpeg"), "jpeg"),
        (("generate", "--seed", "-1"), "seed"),
        (("export", "one.safetensors"), "argument"),
    ],
)
def test_wrong_arguments_are_reported(medvar: Callable[..., Any], arguments: tuple[str, ...], says: str) -> None:
    """A typing mistake would be a traceback."""
    run = medvar(*arguments)
    assert (run.code, run.out) == (2, "")
    assert says in run.err.lower()
    assert "Usage: medvar" in run.err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left"),
        (MemoryError("1 GiB"), 1, "Free some memory"),
    ],
)
def test_errors_of_the_system_are_reported(
    medvar: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    """Ctrl-C, a full disk or too little memory would end in a traceback."""

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("medvar_engine.bundle.read.find_bundle", fail)
    run = medvar("info")
    assert run.code == code
    assert run.err.startswith("error: ")
    assert says in run.err


@pytest.mark.parametrize("where", [("--debug", "info"), ("info", "--debug"), ("info",)])
def test_unexpected_errors_are_reported(
    medvar: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, where: tuple[str, ...]
) -> None:
    """A mistake of ours would be told as if the person had made it, or in a traceback that says nothing to them."""

    def fail(_: object) -> None:
        raise ZeroDivisionError("a \x1b[2Jbug")

    monkeypatch.setattr("medvar_engine.bundle.read.find_bundle", fail)
    run = medvar(*where)
    assert run.code == 70
    assert r"ZeroDivisionError: a \x1b[2Jbug (test_main.py, line" in run.err
    assert medvar_engine.__version__ in run.err
    assert "report" in run.err
    assert ("Traceback" in run.err) == ("--debug" in where)


def test_other_exceptions_are_reported_too(medvar: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries in other languages raise what is no Exception, and a deep file all of Python's calls."""

    class PanicException(BaseException):
        pass

    for kind in (PanicException, RecursionError, UnicodeEncodeError):

        def fail(_: object, kind: Any = kind) -> None:
            raise kind("utf-8", "x", 0, 1, "odd") if kind is UnicodeEncodeError else kind("odd")

        monkeypatch.setattr("medvar_engine.bundle.read.find_bundle", fail)
        run = medvar("info")
        assert run.code == 70
        assert kind.__name__ in run.err
        assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07red", r"\x1b]0;owned\x07red"),
        ("Zürich\u00a05 mm\n", "Zürich\u00a05 mm\n"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("odd\udce9", r"odd\udce9"),
        ("\r\x9b2J", r"\r\x9b2J"),
    ],
)
def test_terminals_are_not_controlled(text: str, shown: str) -> None:
    """A stranger's file would clear the screen, or write another file's name over its own."""
    assert harmless(text) == shown


@pytest.mark.parametrize(
    ("verb", "module", "extra"),
    [
        (("prepare", ".", "out"), "medvar_engine.data.prepare", "train"),
        (("train", "a=b"), "medvar_engine.train.config", "train"),
        (("export", "a", "b", "c", "--licence", "MIT"), "medvar_export.write_bundle", "train,cpu"),
        (("import-var", "a", "b"), "medvar_engine.models.import_var", "train"),
    ],
)
def test_a_missing_extra_is_named(
    medvar: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], module: str, extra: str
) -> None:
    """Whoever installed only what generating needs would see an ImportError instead of the command that helps."""
    monkeypatch.setitem(sys.modules, module, None)
    run = medvar(*verb)
    assert run.code == 1
    assert f"pip install 'napari-medvar[{extra}]'" in run.err
