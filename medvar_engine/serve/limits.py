"""`Limits`: the limits of a server; `Refused`: the error for refused requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medvar_engine.errors import MedvarError


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on requests of clients."""

    rows: int = 16  # images, or rows of labels, in one request
    body: int = 32 * 2**20  # bytes of a request
    waiting: int = 16  # waiting jobs in addition to the running one
    rate: int = 6000  # requests per minute of one client; an image takes about four per scale
    seconds: float = 120  # time limit of a job including waiting, checked before each use of a network
    slow: float = 20  # seconds for receiving a request
    connections: int = 256
    cache: int = 2**30  # bytes of cached keys and values
    memory: int = 2**29  # bytes of all requests and responses in memory; one client can use half of them
    json: int = 2 * 2**20  # bytes of a JSON request, which needs many times as much memory when it is parsed
    lineage: int = 256  # ancestors of the traces of a request

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise MedvarError(f"The limit {name} must be above 0, but is {getattr(self, name)}.")


HANG_UP = {"Connection": "close"}  # for a response before the end of the request, because the rest might never arrive


@dataclass(eq=False)
class Refused(MedvarError):  # noqa: N818
    """The error of a request that is refused with an HTTP status and a message."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text
