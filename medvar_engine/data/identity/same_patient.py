"""Which names are one patient: the same name in another spelling, a series or a picture that two names share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from medvar_engine.data.identity.pseudonyms import Pseudonyms

Names = tuple[str, ...]
"""Names of one patient, in order."""


class SamePatient:
    """Names that are known to be one patient, joined two at a time."""

    def __init__(self, groups: Iterable[Sequence[str]] = ()) -> None:
        self._above: dict[str, str] = {}
        for first, *others in groups:
            for other in others:
                self.join(first, other)

    def first(self, name: str) -> str:
        """One of the names of this patient, the same for all of them."""
        above = self._above
        while (higher := above.get(name, name)) != name:
            above[name] = above.get(higher, higher)
            name = higher
        return name

    def join(self, one: str, other: str) -> None:
        """``one`` and ``other`` are the same patient."""
        low, high = sorted((self.first(one), self.first(other)))
        if low != high:
            self._above[high] = low
            self._above.setdefault(low, low)

    def groups(self) -> list[Names]:
        """The names of every patient who has several."""
        found: dict[str, list[str]] = {}
        for name in sorted(self._above):
            found.setdefault(self.first(name), []).append(name)
        return [tuple(names) for names in found.values() if len(names) > 1]


def by_marks(marks: Mapping[str, Iterable[str]]) -> SamePatient:
    """Names that share a mark, see `marks_of`."""
    same = SamePatient()
    owner: dict[str, str] = {}
    for name, own in marks.items():
        for mark in own:
            same.join(owner.setdefault(mark, name), name)
    return same


def marks_of(patient: str, uids: Iterable[str], pseudonyms: Pseudonyms | None = None) -> tuple[str, ...]:
    """What says that two names are one patient: the spelling made plain, and the SeriesInstanceUIDs.

    They are plain text without ``pseudonyms``, where names are public, and keyed hashes with them.
    """
    names = [("patient", plain_spelling(patient)), *(("series", uid) for one in uids if (uid := plain_uid(one)))]
    return tuple(pseudonyms.mark(*pair) if pseudonyms else " ".join(pair) for pair in names)


def plain_spelling(name: str) -> str:
    """``name`` without what people type differently: case, blanks, leading zeros, the Unicode form.

    >>> plain_spelling(" Müller 007") == plain_spelling("mu\u0308LLER7")
    True
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(
        letter for letter in text if not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf")
    )
    return re.sub(r"(?<!\d)0+(?=\d)", "", seen)


def plain_uid(uid: str) -> str | None:
    """A SeriesInstanceUID without the number that tells several scans of one series apart; None for other names."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)+)\s*(?:#\d+)?", uid.strip("\0 "))
    return found[1] if found else None


def remarks_on_same(groups: Iterable[Names]) -> list[str]:
    """What to say of patients with several names."""
    return [
        f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''} are taken for one patient: these names differ in "
        "their spelling only, or share a series or pictures"
        for names in groups
    ]
