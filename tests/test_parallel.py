"""Units of work: here, in several processes, on a cluster; and what happens when one of them goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from logging import CRITICAL
from pathlib import Path

import pytest

from medvar_engine import parallel
from medvar_engine.errors import MedvarError
from medvar_engine.parallel import UnitLost, run

# The functions below are called in other processes, which get them by value: this file need not be importable there.


def _by_value() -> None:
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


_by_value()


def half(number: int) -> int:
    if number % 2:
        raise MedvarError(f"{number} is odd")
    return number // 2


def deadly(unit: tuple[int, Path]) -> int:
    """Ends its process at 5, always, and at 7 the first time."""
    number, folder = unit
    seen = folder / str(number)
    if number == 5 or (number == 7 and not seen.exists()):
        seen.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def threads_of(_: int) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")  # which NumPy's libraries and torch go by


def slow(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A scheduler and two workers, in threads of this process."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        yield local.scheduler_address


@pytest.mark.parametrize("where", ["here", "processes", "cluster"])
def test_every_unit_is_done_once(where: str, request: pytest.FixtureRequest) -> None:
    """A series would be lost, or counted twice, or one bad one would end the run."""
    address = request.getfixturevalue("cluster") if where == "cluster" else None
    outcomes = list(run(half, range(20), workers=1 if where == "here" else 2, cluster=address))
    assert sorted(index for index, _ in outcomes) == list(range(20))
    for index, outcome in outcomes:
        if index % 2:
            assert isinstance(outcome, MedvarError)
            assert str(outcome) == f"{index} is odd"
        else:
            assert outcome == index // 2


def test_a_worker_that_ends_loses_only_its_unit(tmp_path: Path) -> None:
    """One scan too large for the memory would cost the whole night, or be taken for another one."""
    outcomes = dict(run(deadly, [(number, tmp_path) for number in range(12)], workers=2))
    assert sorted(outcomes) == list(range(12))
    assert isinstance(outcomes[5], UnitLost)
    assert "memory" in str(outcomes[5])
    assert [outcomes[number] for number in range(12) if number != 5] == [n for n in range(12) if n != 5]


@pytest.fixture
def mortal_cluster() -> Iterator[str]:
    """A scheduler and two workers in processes of their own, each started again whenever it ends."""
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=None, silence_logs=CRITICAL) as local,
        ThreadPoolExecutor(2) as keepers,
    ):
        # What dask sends holds the functions of this file by name.
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        address, running, over = local.scheduler_address, set(), threading.Event()

        def keep() -> None:
            command = [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                address,
                "--no-nanny",
                "--nthreads=1",
                "--no-dashboard",
            ]
            while not over.is_set():
                with subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
                ) as worker:
                    running.add(worker)
                    worker.wait()
                    running.discard(worker)

        for _ in range(2):
            keepers.submit(keep)
        try:
            yield address
        finally:
            over.set()
            for worker in list(running):
                worker.kill()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_worker_of_a_cluster_that_ends_loses_only_its_unit(tmp_path: Path, mortal_cluster: str) -> None:
    """The same on a cluster, whose scheduler blames every unit that was given to the worker, innocent ones too."""
    outcomes = dict(run(deadly, [(number, tmp_path) for number in range(12)], cluster=mortal_cluster))
    assert sorted(outcomes) == list(range(12))
    assert isinstance(outcomes[5], UnitLost)
    assert [outcomes[number] for number in range(12) if number != 5] == [n for n in range(12) if n != 5]


def test_a_cluster_without_workers_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run would wait for ever, and say nothing, when the last worker has gone."""
    from distributed import LocalCluster

    monkeypatch.setattr(parallel, "_NOBODY_SECONDS", 1.0)
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        outcomes = run(slow, range(200), cluster=local.scheduler_address)
        next(outcomes)
        local.scale(0)
        with pytest.raises(MedvarError, match="no workers any more"):
            list(outcomes)


def test_not_enough_memory_here() -> None:
    """The same, without a process to lose."""

    def greedy(_: int) -> int:
        raise MemoryError

    ((_, outcome),) = run(greedy, [0])
    assert isinstance(outcome, UnitLost)


def test_bugs_are_not_swallowed() -> None:
    """A mistake of ours would look like a bad scan."""
    with pytest.raises(ZeroDivisionError):
        list(run(lambda number: 1 // number, [0]))
    with pytest.raises(ZeroDivisionError):
        list(run(lambda number: 1 // number, [0, 0], workers=2))


def test_units_wait_until_results_are_taken() -> None:
    """A million units at once would fill the memory with results that nobody has asked for."""
    asked: list[int] = []

    class Units(list[int]):
        def __getitem__(self, index: int) -> int:  # type: ignore[override]
            asked.append(index)
            return super().__getitem__(index)

    outcomes = run(half, Units(range(0, 2000, 2)), workers=2)
    for _ in range(10):
        next(outcomes)
    outcomes.close()
    assert len(asked) < 20


def test_workers_share_the_cores() -> None:
    """Sixteen workers with sixteen threads each are slower than one."""
    for _, found in run(threads_of, range(2), workers=2):
        assert found == "1"


def test_closing_ends_all_work() -> None:
    """Ctrl-C would leave processes behind."""
    outcomes = run(slow, range(100), workers=2)
    _, pid = next(outcomes)
    outcomes.close()
    assert not _runs(pid)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_workers_end_with_a_parent_that_is_killed() -> None:
    """After `kill -9` of a run its workers would hold their memory for ever."""
    script = (
        "import os, time\nfrom medvar_engine.parallel import run\n"
        "def unit(_):\n    time.sleep(0.1)\n    return os.getpid()\n"
        "for _, pid in run(unit, range(1000), workers=2):\n    print(pid, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
    for _ in range(100):
        if not _runs(pid):
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_worker_that_starts_after_its_parent_was_killed_ends() -> None:
    """The same for one that was only just starting, and takes whoever adopted it for its parent."""
    script = f"import time\nfrom medvar_engine.parallel import _follow\n_follow({2**22 + 1})\ntime.sleep(60)\n"
    assert subprocess.run([sys.executable, "-c", script], timeout=50, check=False).returncode == 1


@pytest.mark.parametrize(
    ("missing", "how"), [("loky", {"workers": 2}), ("distributed", {"cluster": "tcp://nowhere:1"})]
)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, missing: str, how: dict) -> None:
    """People would see a traceback instead of the command that installs it."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MedvarError, match=r"pip install 'napari-medvar\["):
        list(run(half, [0, 2], **how))


def test_a_missing_cluster_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped address would end in a traceback of asyncio."""
    monkeypatch.setattr("medvar_engine.parallel._CONNECT_SECONDS", 0.5)
    with pytest.raises(MedvarError, match=r"No cluster answers at tcp://127.0.0.1:9"):
        list(run(half, [0], cluster="tcp://127.0.0.1:9"))
    with pytest.raises(MedvarError, match="No cluster answers at fish://pond"):
        list(run(half, [0], cluster="fish://pond"))
    with pytest.raises(MedvarError, match="1 or more"):
        run(half, [0], workers=0)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended but is not yet buried does not."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
