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
def medvar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> Medvar:
    """Call a verb in this process; a traceback would be an exception here. Keys are not put into your own settings."""
    key = tmp_path_factory.mktemp("settings") / "patient.key"
    monkeypatch.setattr("medvar_engine.data.identity.pseudonyms.default_key_path", lambda: key)

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["medvar", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Run(ended.value.code, said.out, said.err)

    return run
