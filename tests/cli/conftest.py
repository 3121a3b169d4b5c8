"""The `medvar` command as a person calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from medvar_engine.cli.main import main


@dataclass(frozen=True)
class Run:
    """How a call ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Medvar = Callable[..., Run]


@pytest.fixture
def medvar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Medvar:
    """Call a verb in this process; a traceback would be an exception here."""

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["medvar", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Run(ended.value.code, said.out, said.err)

    return run
