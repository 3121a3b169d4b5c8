"""Lists the files below a folder. Links are followed only to files inside the folder."""

from __future__ import annotations

import os
from pathlib import Path

from medvar_engine.data.read.refusal import Refusal


def files_below(source: Path) -> tuple[list[Path], list[Refusal]]:
    """``source`` itself if it is a file, or else the files below it in a stable order; and the refused paths.

    Files and folders with names that begin with a dot are ignored. A link to a file inside ``source`` is followed if
    the file is not listed at its own path, as in data sets that store their content in a hidden folder. A link to a
    folder inside is ignored, because the folder is listed at its own path; loops of links are therefore not followed.
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
                refusals.append(Refusal(ascii(str(path)), "its name is not valid text; rename it"))
            elif path.is_symlink():
                links.append(path)
            elif path.is_file():  # not a pipe or device, reading of which might never end
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
