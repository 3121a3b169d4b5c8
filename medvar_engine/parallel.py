"""One unit of work, many times: in this process, in several (loky), or on a cluster (dask.distributed).

A unit that is run again must do no harm: one whose worker died is tried a second time.
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
"""The number of a unit, and its result or what went wrong with it."""

_AHEAD = 2  # units in flight for each worker: one that runs, one that waits for it
_CONNECT_SECONDS = 20
_NOBODY_SECONDS = 60.0  # that a cluster may be without a worker; one that is started again takes a few
_POLL_SECONDS = 0.02
_DIED = (
    "it ended its worker process twice, perhaps because the memory is too small for it; leave it out, or work on a "
    "larger machine"
)
# Workers share the cores already; libraries that would start as many threads as there are cores would fight for them.
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
    """A unit that ended its worker, or for which there was not enough memory; others went on."""


def run(
    function: Callable[[Unit], Result], units: Sequence[Unit], *, workers: int = 1, cluster: str | None = None
) -> Generator[Outcome[Result], None, None]:
    """Call ``function`` on every unit; gives the number of each and its result, as they are completed.

    ``workers`` processes do it, one being this process itself; or the cluster whose scheduler is at the address
    ``cluster`` (``tcp://host:8786``), with as many as it has. Only a few units for each worker are in flight, so memory
    does not grow with their number: the next ones wait until results have been taken. Closing the iterator cancels the
    rest.

    A `MedvarError` of a unit is given in place of its result, as `UnitLost` when the unit ended its worker twice (a
    cluster has its own count, and tries once more what is lost). Any other exception is a bug, and ends the run.
    ``function``, units and results must be picklable when other processes are asked for.

    >>> dict(run(abs, [-3, 4]))
    {0: 3, 1: 4}
    """
    if workers < 1:
        raise MedvarError(f"workers is the number of processes, at least 1, but got {workers}.")
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
        # A worker died, and nobody knows of which unit. Alone, the culprit shows itself; it may have been bad luck.
        again = iter(suspects)
        while culprit := (yield from _in_one_pool(function, units, again, 1, 1)):
            if (yield from _in_one_pool(function, units, iter(culprit), 1, 1)):
                yield culprit[0], UnitLost(_DIED)


def _in_one_pool(
    function: Callable[[Unit], Result], units: Sequence[Unit], order: Iterator[int], workers: int, ahead: int
) -> Generator[Outcome[Result], None, list[int]]:
    """As `_drain`; the processes live as long as this does."""
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
            # The scheduler blames all that were given to a worker that ended. Alone, the innocent show themselves.
            yield from _drain_cluster(client, function, units, iter(suspects), 1)
        except CancelledError as error:
            raise MedvarError(f"The cluster at {address} was lost while it worked.") from error


def _drain_cluster(
    client: Client, function: Callable[[Unit], Result], units: Sequence[Unit], order: Iterator[int], ahead: int
) -> Iterator[Outcome[Result]]:
    """As `_drain`. The client's own executor fails when a worker ends while its result is fetched; futures do not."""
    from distributed import KilledWorker, as_completed

    running: dict[Any, int] = {}  # by the key that dask gives a unit
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
            outcome = UnitLost("the cluster's workers that took it ended, again and again; leave it out")
        yield running.pop(future.key), outcome


def _wait_for_one(completed: Any, client: Client) -> None:
    """Until a unit is done. Raises `MedvarError` when the cluster has had no worker for a while: it might never be."""
    last_seen = time.monotonic()
    while not completed.has_ready():
        time.sleep(_POLL_SECONDS)
        if client.scheduler_info()["workers"]:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > _NOBODY_SECONDS:
            raise MedvarError(
                "The cluster has no workers any more. What is finished is kept: start some, and run the same again."
            )


def _threads(client: Client, address: str) -> int:
    """How many units the cluster runs at a time."""
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
    """Run the units that ``order`` names, ``ahead`` at a time.

    Returns those that were in flight when the executor broke, and none when all are done.
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
    """In a worker: Ctrl-C reaches the whole group, and one message is enough; a parent killed takes it along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_it() -> None:
        while os.getppid() == parent:  # an orphan is given another parent
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()


def _missing(error: ImportError, extra: str) -> MedvarError:
    return MedvarError(
        f"Work in several processes or on a cluster needs {error.name}, which is not installed: "
        f"`pip install 'napari-medvar[{extra}]'`."
    )
