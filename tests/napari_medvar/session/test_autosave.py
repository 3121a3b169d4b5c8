"""After a crash nothing is lost; after a clean end nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import SCHEDULE, FakeModels

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Request
from napari_medvar.session import autosave as autosave_module
from napari_medvar.session.autosave import Autosave, autosave_folder, recoverable
from napari_medvar.session.generation_session import GenerationSession, Preview

REQUEST = Request(Condition("CT", "abdomen", "axial"), seed=5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions"


@pytest.fixture
def session(folder: Path) -> Iterator[GenerationSession]:
    session = new_session(folder)
    yield session
    session.close()


def new_session(folder: Path) -> GenerationSession:
    session = GenerationSession(FakeModels(), autosave=Autosave(folder))
    session.load()
    return session


def crash(session: GenerationSession) -> None:
    """What the system does when a process dies: its locks are free."""
    assert session._autosave is not None
    session._autosave.leave()


def test_a_crash_loses_nothing(session: GenerationSession, folder: Path) -> None:
    """An afternoon's images would be gone with napari."""
    list(session.generate(REQUEST))
    list(session.resample(2, Request(REQUEST.condition, seed=6)))
    session.rename(0, "keep this")
    session.panels = {"guidance": 3}
    session.select(0)
    crash(session)
    (left,) = recoverable(folder)
    assert (left.images, left.bundle) == (2, "fake")
    again = new_session(folder)
    previews = [made for made in again.recover(left) if isinstance(made, Preview)]
    np.testing.assert_array_equal(previews[0].pixels, next(session.previews()).pixels)
    assert [node.name for node in again.tree.nodes] == ["keep this", ""]
    assert again.tree.current == 0
    assert again.panels == {"guidance": 3}
    assert again.modified  # no file of the user's holds it
    assert recoverable(folder) == ()
    crash(again)
    assert len(recoverable(folder)) == 1  # it was safe again before the old file went


def test_killed_processes_are_distinguished_from_running_ones(folder: Path) -> None:
    """The session of another napari that is still open would be offered, and deleted."""
    code = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parents[2] / "ui")!r}]
from pathlib import Path
from fakes import FakeModels
from medvar_engine.generate.trace import Request
from napari_medvar.session.autosave import Autosave
from napari_medvar.session.generation_session import GenerationSession
session = GenerationSession(FakeModels(), autosave=Autosave(Path({str(folder)!r})))
session.load()
list(session.generate(Request()))
print("ready", flush=True)
time.sleep(120)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        assert recoverable(folder) == ()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert [left.images for left in recoverable(folder)] == [1]


def test_a_clean_end_leaves_nothing(session: GenerationSession, folder: Path) -> None:
    """Every start would offer to restore what was closed on purpose, and the folder would grow for ever."""
    list(session.generate(REQUEST))
    assert len(list(folder.iterdir())) == 2  # the session and its lock
    session.close()
    assert list(folder.iterdir()) == []


def test_a_scale_made_before_a_crash_is_kept(
    session: GenerationSession, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a slow model, minutes of scales would be lost when the last one crashes the driver."""
    monkeypatch.setattr(autosave_module, "SECONDS_BETWEEN", 0.0)
    making = session.generate(REQUEST)
    next(making)
    next(making)
    crash(session)
    (left,) = recoverable(folder)
    again = new_session(folder)
    list(again.recover(left))
    assert again.node is not None
    assert again.node.depth == 2
    again.close()


def test_scales_in_quick_succession_are_not_all_written(
    session: GenerationSession, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing would take longer than making the image."""
    writes = []
    keep = Autosave.write
    monkeypatch.setattr(Autosave, "write", lambda self, saved: (writes.append(saved), keep(self, saved)))
    monkeypatch.setattr(autosave_module, "monotonic", lambda: 1000.0)
    list(session.generate(REQUEST))
    assert [saved.nodes[0].trace.pyramid.depth for saved in writes] == [1, len(SCHEDULE)]
    session.undo()
    assert len(writes) == 2  # nothing is left that would be worth keeping


def test_a_full_disk_is_reported_and_work_continues(
    session: GenerationSession, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk would stop the work, or the user would believe to be safe."""
    list(session.generate(REQUEST))
    assert session.autosave_problem is None

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        list(session.resample(2, Request(REQUEST.condition, seed=6)))
    assert len(session.tree.nodes) == 2
    assert session.autosave_problem is not None
    assert "No space left" in session.autosave_problem
    assert len(list(folder.glob("*.medvar"))) == 1  # what was safe before still is
    session.rename(0, "room again")
    assert session.autosave_problem is None


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    """A wrong setting would stop the work."""
    (tmp_path / "file").write_text("")
    session = new_session(tmp_path / "file" / "sessions")
    list(session.generate(REQUEST))
    assert session.node is not None
    assert session.autosave_problem is not None
    session.close()
    assert recoverable(tmp_path / "file" / "sessions") == ()


def test_images_of_the_model_before_can_be_recovered(session: GenerationSession, folder: Path, tmp_path: Path) -> None:
    """Choosing another bundle would throw unsaved images away; saved ones would be offered again and again."""
    list(session.generate(REQUEST))
    session.load("fake")
    assert [left.images for left in recoverable(folder)] == [1]
    recoverable(folder)[0].discard()
    list(session.generate(REQUEST))
    session.save(tmp_path / "work.medvar")
    session.load("fake")
    assert recoverable(folder) == ()


def test_a_damaged_file_is_passed_over(session: GenerationSession, folder: Path) -> None:
    """One bad file would hide the others, or keep the widget from opening."""
    list(session.generate(REQUEST))
    crash(session)
    (folder / "0-bad.medvar").write_bytes(b"not a session")
    assert len(recoverable(folder)) == 1
    assert (folder / "0-bad.medvar").exists()


def test_what_cannot_be_recovered_is_not_deleted(session: GenerationSession, folder: Path) -> None:
    """A session of a bundle that is on a disk not mounted today would be lost."""
    list(session.generate(REQUEST))
    crash(session)
    (left,) = recoverable(folder)
    other = FakeModels()
    other.backend.info = replace(other.backend.info, bundle_id="other")
    again = GenerationSession(other, autosave=Autosave(folder))
    again.load()
    with pytest.raises(MedvarError, match="model that made these images was not found"):
        list(again.recover(left))
    assert len(recoverable(folder)) == 1


def test_the_newest_comes_first(folder: Path) -> None:
    """The oldest crash would be offered, not the one a minute ago."""
    for seed in (1, 2):
        session = new_session(folder)
        list(session.generate(Request(REQUEST.condition, seed=seed), count=seed))
        crash(session)
    newest = next(left for left in recoverable(folder) if left.images == 1)
    os.utime(newest.path, (time.time() + 60, time.time() + 60))
    assert [left.images for left in recoverable(folder)] == [1, 2]


def test_only_the_user_can_read_the_folder() -> None:
    """Sessions would be written into the working folder, or a place shared by all."""
    assert autosave_folder().is_relative_to(Path.home())
    assert autosave_folder().name == "sessions"


def test_an_image_that_cannot_be_saved_does_not_stop_the_others(session: GenerationSession, folder: Path) -> None:
    """One bad number in one image would switch saving off for all that follow."""
    list(session.generate(REQUEST))
    list(session.resample(2, Request(REQUEST.condition, seed=6)))
    session.rename(0, "odd")
    node = session.tree.node(0)
    bad = replace(node.trace, entropy=tuple(np.full_like(scale, np.nan) for scale in node.trace.entropy))
    assert session._autosave is not None
    saved = session._content()
    nodes = tuple(replace(one, trace=bad) if one.id == 0 else one for one in saved.nodes)
    session._autosave.write(replace(saved, nodes=nodes, current=0, panels={"x": float("nan")}))
    problem = session.autosave_problem
    assert problem is not None
    assert "image 0 (odd)" in problem
    assert "settings of the panels" in problem
    crash(session)
    (left,) = recoverable(folder)
    assert left.images == 1
    again = new_session(folder)
    list(again.recover(left))
    assert [(one.id, one.parent) for one in again.tree.nodes] == [(1, None)]
    again.close()


@pytest.mark.skipif(os.name != "posix", reason="processes of POSIX")
def test_what_a_killed_process_was_writing_is_removed(folder: Path) -> None:
    """Breaks the disk in years: each session has a name of its own, so that nobody would write that file again."""
    folder.mkdir(parents=True)
    left, alive = folder / ".1-ab.medvar.4194305.tmp", folder / f".2-cd.medvar.{os.getppid()}.tmp"
    for one in (left, alive):
        one.write_bytes(b"half")
    session = new_session(folder)
    list(session.generate(REQUEST))
    assert not left.exists()
    assert alive.exists()
    session.close()
