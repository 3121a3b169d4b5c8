"""Pseudonyms hide names and keep people apart; the key is nobody else's."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from platformdirs.api import PlatformDirsABC
from platformdirs.macos import MacOS
from platformdirs.windows import Windows

from medvar_engine.data.identity.pseudonyms import Pseudonyms, default_key_path, load_or_make_key
from medvar_engine.data.prepare import prepare
from medvar_engine.data.read.refusal import Refusal
from medvar_engine.data.survey import ScanRules, anonymous
from medvar_engine.errors import MedvarError

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")


def test_pseudonyms_are_stable_and_keyed() -> None:
    """Breaks for linking again: the same key must give the same pseudonym on every machine, another key another one."""
    known = Pseudonyms(bytes(32))
    assert known.patient("Doe^Jane") == "p-a1c53df65da0"
    assert known.patient(" Doe^Jane ") == known.patient("Doe^Jane")
    assert known.patient("M\u00fcller") == known.patient("Mu\u0308ller")
    assert known.series("Doe^Jane")[2:] != known.patient("Doe^Jane")[2:]
    assert known.series("1.2.3").startswith("s-")
    other = Pseudonyms(bytes(31) + b"1")
    assert other.patient("Doe^Jane") != known.patient("Doe^Jane")
    assert other.key_id != known.key_id
    assert len({known.patient(str(number)) for number in range(5000)}) == 5000


def test_key_is_not_shown() -> None:
    """Breaks for logs and bug reports, into which a key would be copied."""
    key = b"a secret of 16 b"
    assert "secret" not in repr(Pseudonyms(key))
    with pytest.raises(MedvarError, match="5 bytes"):
        Pseudonyms(b"short")


def test_key_is_made_once(tmp_path: Path) -> None:
    """Breaks for data prepared in two runs: a new key would make two patients of one."""
    path = tmp_path / "config" / "medvar" / "patient.key"
    key = load_or_make_key(path, outside=tmp_path / "out")
    assert len(key) == 32
    assert load_or_make_key(path, outside=tmp_path / "out") == key
    assert load_or_make_key(tmp_path / "other.key", outside=tmp_path / "out") != key
    assert [one.name for one in path.parent.iterdir()] == ["patient.key"]


@posix
def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    """Breaks on shared machines: whoever reads the key can link patients."""
    path = tmp_path / "patient.key"
    load_or_make_key(path, outside=tmp_path / "out")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(MedvarError, match="chmod 600"):
        load_or_make_key(path, outside=tmp_path / "out")


def test_a_key_inside_the_output_is_refused(tmp_path: Path) -> None:
    """Breaks for whoever shares the shards: a key among them undoes every pseudonym. Nothing is left behind either."""
    out = tmp_path / "out"
    for path in (out / "patient.key", out / "deep" / ".." / "patient.key"):
        with pytest.raises(MedvarError, match="shared with it"):
            load_or_make_key(path, outside=out)
    assert not out.exists()


@posix
def test_key_behind_a_link(tmp_path: Path) -> None:
    """Breaks for a link that leads into the output."""
    (tmp_path / "out").mkdir()
    (tmp_path / "keys").symlink_to(tmp_path / "out")
    with pytest.raises(MedvarError, match="shared with it"):
        load_or_make_key(tmp_path / "keys" / "patient.key", outside=tmp_path / "out")


@pytest.mark.parametrize(
    "content", [b"", b"abcd\n", b"no key at all, but a text that is long enough to be one", b"\xff" * 64]
)
def test_files_that_are_not_keys_are_refused(tmp_path: Path, content: bytes) -> None:
    """Breaks for a wrong path: a photograph or an empty file must not become the key."""
    path = tmp_path / "patient.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(MedvarError, match="holds no key"):
        load_or_make_key(path, outside=tmp_path / "out")
    assert path.read_bytes() == content


def test_an_unwritable_key_path_is_reported(tmp_path: Path) -> None:
    """Breaks for read-only homes: an answer, no traceback."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(MedvarError, match="cannot be read or created"):
        load_or_make_key(tmp_path / "file" / "patient.key", outside=tmp_path / "out")
    with pytest.raises(MedvarError, match="is not a file"):
        load_or_make_key(tmp_path, outside=tmp_path / "out")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the place of these systems is not a variable's")
def test_the_default_key_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks for finding the key again: it lies where earlier versions put it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_path() == tmp_path / "medvar" / "patient.key"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert default_key_path() == Path.home() / ".config/medvar/patient.key"


@pytest.mark.parametrize(
    ("system", "place"),
    [(Windows, "AppData/Roaming/medvar"), (MacOS, "Library/Application Support/medvar")],
)
def test_the_default_key_path_on_other_systems(
    monkeypatch: pytest.MonkeyPatch, system: type[PlatformDirsABC], place: str
) -> None:
    """Breaks for finding the key again on these systems."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("platformdirs.windows.get_win_folder", lambda _: str(Path.home() / "AppData/Roaming"))
    monkeypatch.setattr("platformdirs.PlatformDirs", system)
    assert default_key_path() == Path.home() / place / "patient.key"


def _anonymous_reason(source: Path, path: str, reason: str) -> str:
    refusal = Refusal(str(source / path), reason.format(source=source))
    (shown,) = anonymous([refusal], source, Pseudonyms(bytes(32)), [])
    assert shown.path.startswith("s-")
    return shown.reason


def test_reasons_lose_names_and_keep_their_words(tmp_path: Path) -> None:
    """Breaks for patients whose folder is named after them, and for readers of a reason, which must stay one."""
    folder = "Doe Jane (1980), ward"
    said = _anonymous_reason(tmp_path, f"{folder}/jane.nii", "{source}/" + folder + ": 2 slices, at least 3 expected.")
    assert not any(name in said for name in ("Doe", "1980", "ward"))
    assert said.endswith(": 2 slices, at least 3 expected.")
    assert (
        _anonymous_reason(tmp_path, "2", "2 slices; at least 12 are expected") == "2 slices; at least 12 are expected"
    )
    said = _anonymous_reason(tmp_path, "a.mhd", "its data file 'Doe Jane.raw' is missing.")
    assert said == "its data file '…' is missing."


def test_source_named_by_a_dot(
    tmp_path: Path, nifti: Callable[..., Path], phantom: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks for who works in the folder of scans: every full stop of a reason was taken for the source."""
    nifti(tmp_path / "jane.nii.gz", phantom)
    (tmp_path / "doe.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    monkeypatch.chdir(tmp_path)
    rules = ScanRules(modality="MR", region="brain", pseudonyms=Pseudonyms(bytes(32)))
    by_dot = prepare(Path("."), tmp_path.parent / f"{tmp_path.name}-dot", rules=rules)
    by_name = prepare(tmp_path, tmp_path.parent / f"{tmp_path.name}-name", rules=rules)
    assert by_dot.refused == by_name.refused
    assert "the source" not in by_dot.refused[0]["reason"]
