"""Being asked to stop: a signal ends a run at the next step's end, after a checkpoint, so nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STOPPED = 75
"""Exit code of a run that was stopped and saved (EX_TEMPFAIL of sysexits.h: try again, with ``--resume``)."""
EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

# What schedulers send before they take a machine away: Slurm and Kubernetes SIGTERM, `sbatch --signal` SIGUSR1.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StoppedEarly(Exception):  # noqa: N818 - no error: the run did as it was told
    """The run was asked to stop, and saved a checkpoint at ``step``."""

    def __init__(self, step: int) -> None:
        super().__init__(f"Stopped at step {step} and saved it. Go on with --resume.")
        self.step = step


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGUSR1 came meanwhile. Outside the main thread none is heard, as Python has it."""
    asked: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        asked.append(number)

    try:
        before = {number: signal.signal(number, remember) for number in _SIGNALS}
    except ValueError:  # signal only works in the main thread
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
