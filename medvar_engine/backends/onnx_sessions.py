"""Graphs of a bundle as sessions of ONNX Runtime: loaded in the background, and from memory only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from threading import Lock
from typing import Any, TypeVar

from medvar_engine.backends.release_memory import give_back
from medvar_engine.bundle.read import STEP, Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted.time_limit import load_seconds, run_seconds, within

_INSTALL = (
    "Install it with `pip install 'napari-medvar[cpu]'`, or, for an NVIDIA GPU, `pip install 'napari-medvar[gpu]'` "
    "(one of the two, never both)."
)
DEVICES = {"CUDAExecutionProvider": "cuda"}  # execution providers with a memory of their own, and how it is called
DATA = ".data"  # what the name of a graph's weights ends with, where they are a file of their own

Result = TypeVar("Result")


class Sessions:
    """The bundle's graphs, each checked by hash and loaded once: when it is first asked for, or before by `warm`.

    A graph above the 2 GB of one ONNX file keeps its weights in ``<graph>.data`` beside it. That is read and checked
    like every file and handed over in memory; the runtime itself opens no file, whatever place a graph names.
    """

    def __init__(self, bundle: Bundle, providers: list[str], threads: int | None) -> None:
        self._bundle, self._providers, self._threads = bundle, providers, threads
        self._lock = Lock()
        self._loaded: dict[str, Future[Any]] = {}
        self._added: dict[str, bytes] = {}
        self._bytes: dict[str, int] = {}  # of the graphs that are loaded, with their weights
        runtime()  # a missing runtime is told now

    def add(self, name: str, content: bytes) -> None:
        """A graph beside the bundle's, for `run_bound`: too small for threads. A name with a space is no file's."""
        self._added[name] = content

    def warm(self, names: Iterable[str]) -> None:
        """Load these in the background, in this order. Whoever asks for one meanwhile waits; its errors come then."""
        pool = ThreadPoolExecutor(1, "medvar-load")
        with self._lock:
            for name in names:
                self._loaded[name] = pool.submit(self._open, name)
        pool.shutdown(wait=False)  # the thread ends with the last graph

    def load(self, name: str) -> Any:
        """The session of one graph."""
        with self._lock:
            future = self._loaded.get(name)
            mine = future is None
            if future is None:
                future = self._loaded[name] = Future()
        if mine:
            try:
                future.set_result(session := self._open(name))
                # What one cannot run on, the others need not try, with a warning each.
                self._providers = [own for own in self._providers if own in session.get_providers()]
            except BaseException as error:
                future.set_exception(error)
        try:
            return future.result()
        except BaseException:
            with self._lock:  # the next call tries again: memory, say, may be free by then
                if self._loaded.get(name) is future:
                    del self._loaded[name]
            raise

    def run(self, name: str, feeds: dict[str, Any]) -> list[Any]:
        """All outputs of one graph."""
        session = self.load(name)
        with _told(name):
            return self._limited(name, feeds, lambda options: session.run(None, feeds, options))

    def run_bound(self, name: str, feeds: dict[str, Any], kept: Collection[str] = ()) -> list[Any]:
        """All outputs of one graph, those named in ``kept`` as OrtValues that stay on the device.

        ``feeds`` are arrays, which are copied to the device, or OrtValues, which are there.
        """
        session = self.load(name)
        device = DEVICES[session.get_providers()[0]]
        names = [output.name for output in session.get_outputs()]
        with _told(name):
            binding = session.io_binding()
            for own, value in feeds.items():
                bind = binding.bind_ortvalue_input if isinstance(value, runtime().OrtValue) else binding.bind_cpu_input
                bind(own, value)
            for own in names:
                binding.bind_output(own, device if own in kept else "cpu")
            binding.synchronize_inputs()  # to run it does not wait for the copies
            self._limited(name, feeds, lambda options: session.run_with_iobinding(binding, options))
            binding.synchronize_outputs()
            pairs = zip(names, binding.get_outputs(), strict=True)
            return [value if own in kept else value.numpy() for own, value in pairs]

    def _limited(self, name: str, feeds: Mapping[str, Any], call: Callable[[Any], Result]) -> Result:
        """What ``call`` gives, given the options of one run, in a time that grows with the work that a graph may do.

        That is the size of its weights times the places that they are applied at: tokens of the transformer, pixels of
        all others. A graph that loops ends then; one that is in the middle of a huge product is not waited for.
        """
        pixels = self._bundle.image_size**2
        places = (prod(_shape(own)[:2] if name == STEP else (*_shape(own)[:1], pixels)) for own in feeds.values())
        seconds = run_seconds(self._bytes.get(name, 0), max(places, default=0))
        options = runtime().RunOptions()

        def stop() -> None:
            options.terminate = True

        try:
            return within(seconds, lambda: call(options), stop)
        except TimeoutError as error:
            raise MedvarError(
                f"{name} of the bundle {self._bundle.path} was stopped: {error}, far longer than a graph of its size "
                "needs. It may be made to run without end; use only bundles whose source you trust."
            ) from error

    def _open(self, name: str) -> Any:
        content = self._added[name] if name in self._added else self._bundle.read(name)
        # Where a table of files is given, even one that no graph names, the runtime looks for weights nowhere else.
        # Without one, it opens what a graph names in the current folder, whose hash nobody knows.
        table = {"": b"\0"}
        if name + DATA in self._bundle.sha256:
            if (self._bundle.path / (name + DATA)).is_symlink():
                raise MedvarError(f"{self._bundle.path / (name + DATA)} is a link. Put the file itself in its place.")
            table[name + DATA] = self._bundle.read(name + DATA)
        try:
            options = self._options(1 if name in self._added else self._threads)
            options.add_external_initializers_from_files_in_memory(
                list(table), list(table.values()), [len(data) for data in table.values()]
            )
            self._bytes[name] = len(content) + sum(map(len, table.values()))
            session = self._session(content, options, load_seconds(self._bytes[name]))
            # It would keep the file's bytes to start anew where a provider fails in the middle: weights held twice.
            session.disable_fallback()
            session._model_bytes = None
            del content, table
            give_back()  # to read a graph takes its weights three times over
            return session
        except Exception as error:  # onnxruntime has no exception type of its own
            raise MedvarError(f"ONNX Runtime cannot load {name} of the bundle {self._bundle.path}: {error}") from error

    def _session(self, content: bytes, options: Any, seconds: float) -> Any:
        """Constants are folded here: what a graph can do when it runs, it can do when it is loaded."""
        return within(seconds, lambda: runtime().InferenceSession(content, options, providers=self._providers))

    @staticmethod
    def _options(threads: int | None) -> Any:
        """Settings of one session.

        Threads: by default the runtime's own choice, one a physical core. Matrix products fill a core's vector units,
        so that a second thread on it only disturbs.
        """
        options = runtime().SessionOptions()
        options.log_severity_level = 3
        # An arena keeps the most that any call took, rounded up to a power of two, a graph each; without one an image
        # takes no longer.
        options.enable_cpu_mem_arena = False
        # Every graph has threads of its own. Idle ones that spin take the cores from the graph that runs: on two
        # cores an image takes 1.8 times as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            options.intra_op_num_threads = threads
        return options


def _shape(value: Any) -> tuple[int, ...]:
    """Of an array or an OrtValue."""
    return tuple(value.shape() if callable(value.shape) else value.shape)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Errors of running a graph, said as what can be done."""
    try:
        yield
    except MedvarError:
        raise
    except Exception as error:  # onnxruntime has no exception type of its own
        if "alloc" in str(error).lower() or "memory" in str(error).lower():
            raise MedvarError(f"Not enough memory to run {name}: generate fewer images at a time.") from error
        raise MedvarError(f"ONNX Runtime failed to run {name}: {error}") from error


def runtime() -> Any:
    """The package onnxruntime. Raises `MedvarError` with the command that mends a missing, broken or old one."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MedvarError(f"Generating images needs ONNX Runtime, which is not installed. {_INSTALL}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MedvarError(
            "ONNX Runtime is broken here: `onnxruntime` and `onnxruntime-gpu` are probably both installed. "
            f"Uninstall both. {_INSTALL}"
        )
    if not hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"):
        raise MedvarError(
            f"ONNX Runtime {onnxruntime.__version__} is too old: before 1.24 it could open files that a model of a "
            f"stranger names. {_INSTALL.replace('pip install', 'pip install --upgrade')}"
        )
    return onnxruntime


def providers(device: str) -> list[str]:
    """The execution providers to try, best first."""
    package = runtime()
    available = package.get_available_providers()
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if device not in ("auto", "cuda"):
        raise MedvarError(f"A device is auto, cpu or cuda, not {device!r}.")
    if "CUDAExecutionProvider" in available:
        if hasattr(package, "preload_dlls"):
            package.preload_dlls()
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    if device == "cuda":
        raise MedvarError(
            f"CUDA was asked for, but ONNX Runtime offers only {', '.join(available)}. "
            "Install `napari-medvar[gpu]` in place of `[cpu]`, or use device cpu."
        )
    return ["CPUExecutionProvider"]
