from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.storage import write_files
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png

MakeImage = Callable[..., OutputImage]


def test_a_full_disk_leaves_the_old_file(
    make_output_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image of yesterday would be gone, and half of today's in its place."""
    path = write_png(tmp_path / "a.png", make_output_image())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MedvarError, match=r"a\.png: No space left"):
        write_png(path, make_output_image(low=0.0))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_image_and_sidecar_come_together_or_not_at_all(
    make_output_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice would lie beside the provenance of another."""
    path, sidecar = write_nifti(tmp_path / "a.nii", make_output_image())
    before = path.read_bytes(), sidecar.read_bytes()
    calls = 0

    def full_at_the_second(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(MedvarError, match="No space left"):
        write_nifti(path, make_output_image(low=0.0))
    assert (path.read_bytes(), sidecar.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_says_where_it_could_not_write(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Somebody who mistypes a folder would see a traceback."""
    with pytest.raises(MedvarError, match=r"missing/a\.png: No such file"):
        write_png(tmp_path / "missing" / "a.png", make_output_image())
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MedvarError, match="it is a folder"):
        write_png(tmp_path / "folder.png", make_output_image())
    (tmp_path / "file").touch()
    with pytest.raises(MedvarError, match="Not a directory"):
        write_files({tmp_path / "file" / "a.png": b""})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]
