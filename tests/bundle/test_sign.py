"""Signing: what the author changed by hand is right again, and nothing is half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medvar_engine.bundle.read import CARD, MANIFEST, read_bundle
from medvar_engine.bundle.sign import sign_bundle
from medvar_engine.errors import MedvarError


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "tiny")


def test_a_corrected_bundle_is_signed_again(folder: Path) -> None:
    """An author could not mend a licence or a model card without exporting anew."""
    before = read_bundle(folder)
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    (folder / MANIFEST).write_text(text.replace("MIT", "CC0"), encoding="utf-8")
    (folder / CARD).write_text("# better\n", encoding="utf-8")
    with pytest.raises(MedvarError, match="changed after it was written"):
        read_bundle(folder)
    sign_bundle(folder)
    after = read_bundle(folder)
    assert (after.licence, after.card, after.bundle_id) == ("CC0", "# better\n", before.bundle_id)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*after.sha256, MANIFEST])


def test_signing_twice_changes_nothing(folder: Path) -> None:
    """A bundle under version control would differ for no reason."""
    before = (folder / MANIFEST).read_bytes()
    sign_bundle(folder)
    assert (folder / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", None])
def test_invalid_bundles_are_not_signed(folder: Path, content: bytes | None) -> None:
    """A slip in the JSON would be a traceback, or lose the manifest."""
    path = folder / MANIFEST
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MedvarError, match="cannot be signed"):
        sign_bundle(folder)
    assert not path.exists() if content is None else path.read_bytes() == content


def test_an_export_is_signed(tiny_bundle: Path) -> None:
    """Every new bundle would be refused."""
    values = json.loads((tiny_bundle / MANIFEST).read_text(encoding="utf-8"))
    assert len(values["digest"]) == len(values["weights"]) == 64
    assert "codebook.npy" in values["sha256"]
