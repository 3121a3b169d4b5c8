"""Which files lie below a folder. Links are followed to files inside it only: nothing outside is read by accident."""

from __future__ import annotations

import os
from pathlib import Path

from medvar_engine.data.read.refusal import Refusal


def files_below(source: Path) -> tuple[list[Path], list[Refusal]]:
    """``source`` itself when it is a file, or else the files below it, in a stable order; and what is refused.

    Names that begin with a dot are passed over, files and folders. A link to a file inside ``source`` counts when the
    file is not found at its own place too, as in data sets that keep their content in a hidden folder. A link to a
    folder inside is passed over, since the folder is found at its own place; so no circle of links is walked.
    """
    if source.is_file():
        return [source], []
    files: list[Path] = []
    links: list[Path] = []
    refusals: list[Refusal] = []

    def unreadable(error: OSError) -> None:
        refusals.append(Refusal(str(error.filename), f"the folder cannot be read ({error.strerror})"))

    for folder, folder_names, file_names in os.walk(source, onerror=unreadable):
        folder_names[:] = [name for name in folder_names if not name.startswith(".")]
        links += [path for name in folder_names if (path := Path(folder, name)).is_symlink()]
        for name in file_names:
            path = Path(folder, name)
            if name.startswith("."):
                continue
            if not _is_text(name):
                refusals.append(Refusal(ascii(str(path)), "its name is no valid text; rename it"))
            elif path.is_symlink():
                links.append(path)
            elif path.is_file():  # no pipe or device, which would wait for ever
                files.append(path)
    root = source.resolve()
    known = {root / path.relative_to(source) for path in files} if links else set()
    for link in sorted(links):
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            refusals.append(Refusal(str(link), "a link that leads nowhere, or round in a circle"))
            continue
        if not target.is_relative_to(root):
            refusals.append(Refusal(str(link), f"a link that leads out of {source}; name the folder it leads to"))
        elif target.is_file() and target not in known:
            known.add(target)
            files.append(link)
    return sorted(files), refusals


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
