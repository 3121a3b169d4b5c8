"""One process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from medvar_engine.errors import MedvarError


@contextmanager
def alone(lock: Path, refusal: str) -> Iterator[None]:
    """Hold the file ``lock``, which a process lets go of when it ends, however that be.

    Raises `MedvarError`, saying ``refusal``, when another one holds it, and `OSError` when the file cannot be made.
    """
    from filelock import FileLock, Timeout  # not there in a plain installation, which only generates

    with ExitStack() as held:
        try:
            held.enter_context(FileLock(lock, timeout=0))
        except Timeout as error:
            raise MedvarError(refusal) from error
        yield
