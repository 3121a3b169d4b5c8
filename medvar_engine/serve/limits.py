"""What a server grants, and how it says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medvar_engine.errors import MedvarError


@dataclass(frozen=True, slots=True)
class Limits:
    """All that a client could ask too much of."""

    rows: int = 16  # images, or images under a label, in one request
    body: int = 32 * 2**20  # bytes of a request's
    waiting: int = 16  # jobs that wait for their turn; one runs
    rate: int = 6000  # requests of one client a minute; an image scale by scale takes about four a scale
    seconds: float = 120  # that a job may take, its waiting included; asked before each use of a network
    slow: float = 20  # seconds for a request to arrive whole
    connections: int = 256
    cache: int = 2**30  # bytes of keys and values that are remembered
    memory: int = 2**29  # bytes of requests and answers that are held together; half of them for one client
    json: int = 2 * 2**20  # bytes of a request in JSON, which takes many times as much when it is read
    lineage: int = 256  # images that the traces of a request come from

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise MedvarError(f"The limit {name} must be above 0, but is {getattr(self, name)}.")


HANG_UP = {"Connection": "close"}  # after an answer before the request's end: the rest might never come


@dataclass(eq=False)
class Refused(MedvarError):  # noqa: N818
    """A request that is answered with a status of HTTP and a text, and not with what it asked for."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text
