"""Placeholder patient ids, which programs write when they remove the real id or have none."""

from __future__ import annotations

import re

_PLACEHOLDER = re.compile(
    r"((patient|subject) )?(anon(ymous|ymi[sz]ed|ym)?|de-?identified|not (available|known)|no|none|null|nil|n/?a"
    r"|unknown|undefined|default|dummy|empty|removed|test)( ?(patient|subject|name|id))?"
    r"|(patient|subject)( ?id)?|xxx*|0+|1|-+|\?+",
    re.IGNORECASE,
)


def is_placeholder(patient: str) -> bool:
    """Whether an id is a placeholder that may be shared by several patients: ``ANONYMOUS``, ``0000``, ``unknown``.

    >>> [is_placeholder(one) for one in ("ANONYMOUS", "Unknown^Patient", "LIDC-IDRI-0314", "TEST01")]
    [True, True, False, False]
    """
    return _PLACEHOLDER.fullmatch(re.sub(r"[_^\s]+", " ", patient).strip()) is not None
