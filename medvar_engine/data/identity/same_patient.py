"""Recognises names of the same patient: by spelling, by a common series, or by a common image."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from medvar_engine.data.identity.pseudonyms import Pseudonyms

Names = tuple[str, ...]
"""The sorted names of one patient."""


class SamePatient:
    """Groups of names that belong to the same patient (a union-find structure)."""

    def __init__(self, groups: Iterable[Sequence[str]] = ()) -> None:
        self._above: dict[str, str] = {}
        for first, *others in groups:
            for other in others:
                self.join(first, other)

    def first(self, name: str) -> str:
        """The representative name of this patient."""
        above = self._above
        while (higher := above.get(name, name)) != name:
            above[name] = above.get(higher, higher)
            name = higher
        return name

    def join(self, one: str, other: str) -> None:
        """Record that ``one`` and ``other`` are the same patient."""
        low, high = sorted((self.first(one), self.first(other)))
        if low != high:
            self._above[high] = low
            self._above.setdefault(low, low)

    def groups(self) -> list[Names]:
        """The names of every patient with several names."""
        found: dict[str, list[str]] = {}
        for name in sorted(self._above):
            found.setdefault(self.first(name), []).append(name)
        return [tuple(names) for names in found.values() if len(names) > 1]


def by_marks(marks: Mapping[str, Iterable[str]]) -> SamePatient:
    """Groups of names that share a mark, see `marks_of`."""
    same = SamePatient()
    owner: dict[str, str] = {}
    for name, own in marks.items():
        for mark in own:
            same.join(owner.setdefault(mark, name), name)
    return same


def marks_of(patient: str, uids: Iterable[str], pseudonyms: Pseudonyms | None = None) -> tuple[str, ...]:
    """The marks by which two names are recognised as one patient: the normalised spelling and the SeriesInstanceUIDs.

    They are plain text without ``pseudonyms``, for public names, and keyed hashes with them.
    """
    names = [("patient", plain_spelling(patient)), *(("series", uid) for one in uids if (uid := plain_uid(one)))]
    return tuple(pseudonyms.mark(*pair) if pseudonyms else " ".join(pair) for pair in names)


def plain_spelling(name: str) -> str:
    """``name`` normalised in case, blanks, leading zeros and Unicode form.

    >>> plain_spelling(" Müller 007") == plain_spelling("mu\u0308LLER7")
    True
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(
        letter for letter in text if not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf")
    )
    return re.sub(r"(?<!\d)0+(?=\d)", "", seen)


def plain_uid(uid: str) -> str | None:
    """A SeriesInstanceUID without the number that distinguishes scans of one series; None for other names."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)+)\s*(?:#\d+)?", uid.strip("\0 "))
    return found[1] if found else None


def remarks_on_same(groups: Iterable[Names]) -> list[str]:
    """Remarks about patients with several names."""
    return [
        f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''} are taken for one patient: these names differ in "
        "their spelling only, or share a series or images"
        for names in groups
    ]
