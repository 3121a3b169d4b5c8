"""Patterns of file names with named parts, such as ``imagesTr/amos_{case}.nii.gz``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from medvar_engine.errors import MedvarError

_TOKEN = re.compile(r"\*\*/|\*|\{(\w+)\}")
_BRACES = re.compile(r"[{}]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern for the end of a path in any folder or archive. Case is ignored.

    ``*`` matches any text without a slash, ``**/`` any number of folders, and ``{name}`` a named part: text without a
    slash of at least one letter. A repeated name must match the same text. ``.nii.gz`` at the end also matches
    ``.nii``.

    >>> Pattern("{case}/{case}_{contrast}.nii.gz").parts(Path("/data/brats.zip!/train/p7/p7_t1.nii"))
    {'case': 'p7', 'contrast': 't1'}
    >>> Pattern("{case}/{case}_{contrast}.nii.gz").parts(Path("/data/p7/p8_t1.nii")) is None
    True
    """

    text: str
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plain = _TOKEN.sub("", self.text)
        if not self.text or self.text.startswith("/") or "\\" in self.text or _BRACES.search(plain):
            raise MedvarError(
                f"the pattern {self.text!r} is none: it is a path below the data set's folder with / between folders, "
                "in which * stands for any text, **/ for any folders, and {name} for a part with a name"
            )
        object.__setattr__(self, "_regex", re.compile(f"(?:^|/){_regex_of(self.text)}$", re.IGNORECASE))

    @property
    def names(self) -> frozenset[str]:
        """The names of the parts."""
        return frozenset(self._regex.groupindex)

    def parts(self, path: Path) -> dict[str, str] | None:
        """Name → text of the parts, or None if the path does not match."""
        found = self.find(path)
        return None if found is None else found[1]

    def find(self, path: Path) -> tuple[Path, dict[str, str]] | None:
        """The folder in which the pattern begins, and `parts`; None if the path does not match."""
        found = self._regex.search(path.as_posix())
        return None if found is None else (Path(path.as_posix()[: found.start()] or "/"), found.groupdict())


def _regex_of(text: str) -> str:
    optional_gz = text.lower().endswith(".nii.gz")
    pieces, at, seen = [], 0, set()
    body = text[: -len(".gz")] if optional_gz else text
    for token in _TOKEN.finditer(body):
        pieces.append(re.escape(body[at : token.start()]))
        name = token[1]
        if name is None:
            pieces.append("(?:[^/]+/)*" if token[0] == "**/" else "[^/]*")
        elif name in seen:
            pieces.append(f"(?P={name})")
        else:
            pieces.append(f"(?P<{name}>[^/]+?)")
            seen.add(name)
        at = token.end()
    pieces.append(re.escape(body[at:]))
    return "".join(pieces) + (r"(?:\.gz)?" if optional_gz else "")
