"""Runs many units of work: in this process, in several processes (loky), or on a cluster (dask.distributed).

It must be safe to run a unit twice, because a unit is repeated when its worker process ends unexpectedly.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from medvar_engine.errors import MedvarError

if TYPE_CHECKING:
    from distributed import Client

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Outcome = tuple[int, Result | MedvarError]
"""The number of a unit, and its result or its error."""

_AHEAD = 2  # units submitted for each worker: one that runs and one that waits
_CONNECT_SECONDS = 20
_NOBODY_SECONDS = 60.0  # time that a cluster may have no worker; restarting one takes a few seconds
_POLL_SECONDS = 0.02
_DIED = (
    "it ended its worker process twice, perhaps because there was not enough memory; leave it out, or use a machine "
    "with more memory"
)
# The workers use all cores already. Libraries in them must not start one thread per core in addition.
_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ),
    "1",
)


class UnitLost(MedvarError):  # noqa: N818
    """The error of a unit that ended its worker or needed too much memory. Other units continue."""


def run(
    function: Callable[[Unit], Result], units: Sequence[Unit], *, workers: int = 1, cluster: str | None = None
) -> Generator[Outcome[Result], None, None]:
    """Call ``function`` on every unit; yields the number of each unit and its result, in the order of completion.

    The work is done by ``workers`` processes (with 1, by this process itself), or by the workers of the cluster whose
    scheduler has the address ``cluster`` (``tcp://host:8786``). Only a few units per worker are submitted at a time, so
    memory does not grow with the number of units: further units wait until results have been consumed. Closing the
    iterator cancels the remaining units.

    A `MedvarError` of a unit is yielded instead of its result; it is a `UnitLost` when the unit ended its worker twice
    (a cluster has its own limit, and lost units are tried once more). Any other exception is a bug and ends the run.
    With other processes, ``function``, units and results must be picklable.

    >>> dict(run(abs, [-3, 4]))
    {0: 3, 1: 4}
    """
    if workers < 1:
        raise MedvarError(f"workers, the number of processes, must be 1 or more, but is {workers}.")
    if cluster is not None:
        return _on_cluster(function, units, cluster)
    if workers == 1:
        return ((index, _attempt(function, unit)) for index, unit in enumerate(units))
    return _in_processes(function, units, min(workers, len(units)) or 1)


def _attempt(function: Callable[[Unit], Result], unit: Unit) -> Result | MedvarError:
    try:
        return function(unit)
    except MedvarError as error:
        return error
    except MemoryError:
        return UnitLost("there was not enough memory for it; use fewer workers")


def _in_processes(
    function: Callable[[Unit], Result], units: Sequence[Unit], workers: int
) -> Generator[Outcome[Result], None, None]:
    order = iter(range(len(units)))
    while suspects := (yield from _in_one_pool(function, units, order, workers, _AHEAD * workers)):
        # A worker ended, and the unit that caused it is unknown. Units are repeated one at a time to find it.
        again = iter(suspects)
        while culprit := (yield from _in_one_pool(function, units, again, 1, 1)):
            if (yield from _in_one_pool(function, units, iter(culprit), 1, 1)):
                yield culprit[0], UnitLost(_DIED)


def _in_one_pool(
    function: Callable[[Unit], Result], units: Sequence[Unit], order: Iterator[int], workers: int, ahead: int
) -> Generator[Outcome[Result], None, list[int]]:
    """Like `_drain`, with a pool of processes that ends with this iterator."""
    try:
        from loky import ProcessPoolExecutor  # type: ignore[import-untyped]
    except ImportError as error:
        raise _missing(error, "train") from error
    executor = ProcessPoolExecutor(workers, env=_ONE_THREAD, initializer=_follow, initargs=(os.getpid(),))
    try:
        return (yield from _drain(executor, function, units, order, ahead))
    finally:
        executor.shutdown(kill_workers=True)


def _on_cluster(
    function: Callable[[Unit], Result], units: Sequence[Unit], address: str
) -> Generator[Outcome[Result], None, None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise _missing(error, "cluster") from error
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise MedvarError(
            f"No cluster answers at {address} ({error}). Give the address that `dask scheduler` prints, such as "
            "tcp://host:8786."
        ) from error
    with client:
        threads = _threads(client, address)
        suspects: list[int] = []
        try:
            for index, outcome in _drain_cluster(client, function, units, iter(range(len(units))), _AHEAD * threads):
                if isinstance(outcome, UnitLost):
                    suspects.append(index)
                else:
                    yield index, outcome
            # The scheduler reports all units of a worker that ended. They are repeated one at a time.
            yield from _drain_cluster(client, function, units, iter(suspects), 1)
        except CancelledError as error:
            raise MedvarError(f"The connection to the cluster at {address} was lost during the work.") from error


def _drain_cluster(
    client: Client, function: Callable[[Unit], Result], units: Sequence[Unit], order: Iterator[int], ahead: int
) -> Iterator[Outcome[Result]]:
    """Like `_drain`.

    It uses futures, because the client's executor fails when a worker ends while a result is fetched.
    """
    from distributed import KilledWorker, as_completed

    running: dict[Any, int] = {}  # by dask's key of the unit
    completed = as_completed(loop=client.loop)
    while True:
        for index in islice(order, ahead - len(running)):
            future = client.submit(_attempt, function, units[index], pure=False)
            running[future.key] = index
            completed.add(future)
        if not running:
            return
        _wait_for_one(completed, client)
        future = next(completed)
        try:
            outcome = future.result()
        except KilledWorker:
            outcome = UnitLost("it ended workers of the cluster repeatedly; leave it out")
        yield running.pop(future.key), outcome


def _wait_for_one(completed: Any, client: Client) -> None:
    """Wait until a unit is completed. Raises `MedvarError` when the cluster has had no worker for some time."""
    last_seen = time.monotonic()
    while not completed.has_ready():
        time.sleep(_POLL_SECONDS)
        if client.scheduler_info()["workers"]:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > _NOBODY_SECONDS:
            raise MedvarError(
                "The cluster has no workers any more. Finished units are kept. Start workers, and run the same "
                "command again."
            )


def _threads(client: Client, address: str) -> int:
    """The number of units that the cluster runs at a time."""
    try:
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError as error:
        raise MedvarError(f"The cluster at {address} has no workers. Start some: `dask worker {address}`.") from error
    return sum(client.nthreads().values())


def _drain(
    executor: Executor,
    function: Callable[[Unit], Result],
    units: Sequence[Unit],
    order: Iterator[int],
    ahead: int,
) -> Generator[Outcome[Result], None, list[int]]:
    """Run the units with the numbers of ``order``, ``ahead`` at a time.

    Returns the numbers of units that were running when the executor broke; an empty list when all are completed.
    """
    running: dict[Future[Result | MedvarError], int] = {}
    while True:
        for index in islice(order, ahead - len(running)):
            try:
                running[executor.submit(_attempt, function, units[index])] = index
            except BrokenProcessPool:
                return sorted([index, *running.values()])
        if not running:
            return []
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            try:
                outcome = future.result()
            except BrokenProcessPool:
                return sorted(running.values())
            yield running.pop(future), outcome


def _follow(parent: int) -> None:
    """Set up a worker: ignore Ctrl-C, which the main process handles, and end when the main process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def exit_with_parent() -> None:
        while os.getppid() == parent:  # the parent of an orphaned process changes
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def _missing(error: ImportError, extra: str) -> MedvarError:
    return MedvarError(
        f"Work in several processes or on a cluster needs {error.name}, which is not installed: "
        f"`pip install 'napari-medvar[{extra}]'`."
    )
