"""Write ``bundle.json``, with the digest that shows whether it was changed afterwards."""

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
    """Write ``values`` and their digest to ``bundle.json``, whole or not at all."""
    signed = {**values, "digest": manifest_digest(values)}
    replace_file(folder / MANIFEST, json.dumps(signed, indent=1, ensure_ascii=False).encode())


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a bundle but its manifest, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    return {path.name: sha256(path) for path in files}


def sign_bundle(folder: Path) -> None:
    """Make the manifest of a bundle, or any of its files, right again after its author changed it by hand.

    Takes the hash of every file as it lies there. Of somebody else's bundle that says nothing about where it is from.
    """
    path = folder / MANIFEST
    try:
        values = plain_json.read(path)
        write_manifest(folder, {**values, "sha256": file_hashes(folder)})
    except (OSError, ValueError, TypeError) as error:
        raise MedvarError(f"{path} cannot be signed: {error}") from error
