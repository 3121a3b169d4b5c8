"""Put files into a bundle that is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvar_engine.bundle.read import GATE_ENCODER, MANIFEST, Bundle, manifest_digest, read_bundle
from medvar_engine.storage import sha256_of, write_files


def add_to_bundle(folder: Path, contents: Mapping[str, bytes], **fields: Any) -> Bundle:
    """Write files by name into the bundle ``folder``, and name them in ``bundle.json``; gives the bundle as it is now.

    A training index of an earlier version, whose encoder `GATE_ENCODER` was, loses that. Files of these names are
    replaced, and so are ``fields`` of the manifest. Hashes of the others stay as the manifest has them, so that this
    signs nothing that was damaged. The manifest changes last: until then it names none of the new files, and nobody
    uses them. Only where files of these names are replaced can a process that is killed in that moment leave a bundle
    that does not agree with its manifest; the same call again puts it right.

    Raises `MedvarError` when ``folder`` holds no bundle that can be used, or when a file cannot be written.
    """
    read_bundle(folder)
    values = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | fields
    del values["digest"]
    values["sha256"].pop(GATE_ENCODER, None)
    values["sha256"] |= {name: sha256_of(content) for name, content in contents.items()}
    manifest = json.dumps({**values, "digest": manifest_digest(values)}, indent=1, ensure_ascii=False)
    files = {folder / name: content for name, content in contents.items()}
    write_files({**files, folder / MANIFEST: manifest.encode("utf-8")})
    (folder / GATE_ENCODER).unlink(missing_ok=True)
    return read_bundle(folder)
