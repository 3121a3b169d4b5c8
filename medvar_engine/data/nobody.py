"""Placeholder patient ids, which programs write when they remove the real id or have none."""

from __future__ import annotations

import re

_NOBODY = re.compile(
    r"anon(ymous|ymi[sz]ed|ym)?|de-?identified|no ?(name|id)|none|null|nil|n/?a|unknown|undefined|default|empty|removed"
    r"|patient( ?id)?|test|xxx*|0+|1|-+|\?+",
    re.IGNORECASE,
)


def names_nobody(patient: str) -> bool:
    """Whether an id is a placeholder that may be shared by several patients: ``ANONYMOUS``, ``0000``, ``unknown``.

    >>> names_nobody("ANONYMOUS"), names_nobody("LIDC-IDRI-0314")
    (True, False)
    """
    return _NOBODY.fullmatch(patient.strip().replace("_", " ")) is not None
