"""Writes ``bundle.json`` with the digest by which later changes are detected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvar_engine.bundle.read import MANIFEST, manifest_digest
from medvar_engine.errors import MedvarError
from medvar_engine.storage import replace_file, sha256
from medvar_engine.untrusted import plain_json


def write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Write ``values`` and their digest to ``bundle.json`` in one step; on failure an older file stays unchanged."""
    replace_file(folder / MANIFEST, signed_manifest(values))


def signed_manifest(values: Mapping[str, Any]) -> bytes:
    """The content of ``bundle.json``: ``values`` with their digest."""
    signed = {**values, "digest": manifest_digest(values)}
    return json.dumps(signed, indent=1, ensure_ascii=False).encode()


def file_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a bundle except its manifest, by file name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    return {path.name: sha256(path) for path in files}


def sign_bundle(folder: Path) -> None:
    """Update the hashes and the digest of a bundle after its author has changed files or the manifest by hand.

    The hashes are those of the present files. They do not prove the origin of a bundle. Raises `MedvarError` if the
    manifest cannot be read.
    """
    path = folder / MANIFEST
    try:
        values = plain_json.read(path)
        write_manifest(folder, {**values, "sha256": file_hashes(folder)})
    except (OSError, ValueError, TypeError) as error:
        raise MedvarError(f"{path} cannot be signed: {error}") from error
