"""Stop signals: a run ends after the current step and a checkpoint, so that nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STOPPED = 75
"""Exit code of a run that was stopped and saved (EX_TEMPFAIL of sysexits.h: try again, with ``--resume``)."""
EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""

# Signals that schedulers send before they reclaim a machine: Slurm and Kubernetes SIGTERM, `sbatch --signal` SIGUSR1.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StoppedEarly(Exception):  # noqa: N818 - not an error
    """The run was asked to stop, and saved a checkpoint at ``step``."""

    def __init__(self, step: int) -> None:
        super().__init__(f"Stopped at step {step} and saved a checkpoint. Continue with --resume.")
        self.step = step


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGTERM or SIGUSR1 has arrived; only the main thread receives signals."""
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
