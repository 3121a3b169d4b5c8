"""Add files to an existing bundle, such as a training index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvar_engine.bundle.read import GATE_ENCODER, MANIFEST, Bundle, read_bundle
from medvar_engine.bundle.sign import signed_manifest
from medvar_engine.storage import sha256_of, write_files


def add_to_bundle(folder: Path, contents: Mapping[str, bytes], **fields: Any) -> Bundle:
    """Write files by name into the bundle ``folder``, list them in ``bundle.json``, and return the changed bundle.

    Existing files of these names are replaced, and so are ``fields`` of the manifest. `GATE_ENCODER`, which belonged to
    training indexes of an earlier version, is removed. Hashes of other files stay as they are in the manifest, so that
    a damaged file is never signed. The manifest is written last: until then it does not list the new files, and they
    are not used. If files are replaced and the process is killed at that moment, the bundle may disagree with its
    manifest; calling this function again repairs it.

    Raises `MedvarError` when ``folder`` is not a valid bundle, or when a file cannot be written.
    """
    read_bundle(folder)
    values = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | fields
    del values["digest"]
    values["sha256"].pop(GATE_ENCODER, None)
    values["sha256"] |= {name: sha256_of(content) for name, content in contents.items()}
    files = {folder / name: content for name, content in contents.items()}
    write_files({**files, folder / MANIFEST: signed_manifest(values)})
    (folder / GATE_ENCODER).unlink(missing_ok=True)
    return read_bundle(folder)
