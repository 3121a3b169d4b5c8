"""`Sessions`: the graphs of a bundle as ONNX Runtime sessions, loaded in the background and from memory only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from medvar_engine.backends.release_memory import give_back
from medvar_engine.bundle.read import GUIDE, STEP, Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted.memory_limit import open_session, run_bytes, run_options
from medvar_engine.untrusted.time_limit import load_seconds, run_seconds, within

_INSTALL = (
    "Install it with `pip install 'napari-medvar[cpu]'`, or, for an NVIDIA GPU, `pip install 'napari-medvar[gpu]'` "
    "(one of the two, not both)."
)
DEVICES = {"CUDAExecutionProvider": "cuda"}  # execution providers with their own memory, and the name of that device
DATA = ".data"  # suffix of a separate file of weights
_PIXEL_BYTES = 16 * 2**10  # memory per pixel of an image; a wide decoder needs half of it for a block of images
_IMAGES_ON_GPU = 128  # a GPU runs all images of a batch together, twice with guidance, and keeps their keys and values

Result = TypeVar("Result")


class Sessions:
    """The graphs of a bundle. Each is checked by its hash and loaded once, when first needed or in advance by `warm`.

    A graph larger than 2 GB, the limit of an ONNX file, has its weights in ``<graph>.data`` beside it. That file is
    read and checked like all others, and passed in memory. The runtime itself opens no file, whatever path a graph
    names.
    """

    def __init__(self, bundle: Bundle, providers: list[str], threads: int | None) -> None:
        self._bundle, self._providers, self._threads = bundle, providers, threads
        self._lock = Lock()
        self._loaded: dict[str, Future[Any]] = {}
        self._added: dict[str, bytes] = {}
        self._bytes: dict[str, int] = {}  # size of each loaded graph with its weights
        runtime()  # reports a missing runtime now

    def add(self, name: str, content: bytes) -> None:
        """Add a small graph, not from the bundle, for `run_bound`.

        Its name has a space, so it cannot be a file's name.
        """
        self._added[name] = content

    def warm(self, names: Iterable[str]) -> None:
        """Load graphs in the background, in this order.

        `load` waits for a graph that is being loaded, and raises its errors.
        """
        pool = ThreadPoolExecutor(1, "medvar-load")
        with self._lock:
            for name in names:
                self._loaded[name] = pool.submit(self._open, name)
        pool.shutdown(wait=False)  # the thread ends with the last graph

    def load(self, name: str) -> Any:
        """The session of one graph. Raises `MedvarError` if it cannot be loaded."""
        with self._lock:
            future = self._loaded.get(name)
            mine = future is None
            if future is None:
                future = self._loaded[name] = Future()
        if mine:
            try:
                future.set_result(session := self._open(name))
                # Other graphs need not try a provider that failed, with a warning each time.
                self._providers = [own for own in self._providers if own in session.get_providers()]
            except BaseException as error:
                future.set_exception(error)
        try:
            return future.result()
        except BaseException:
            with self._lock:  # the next call tries again, because memory, for example, may be free by then
                if self._loaded.get(name) is future:
                    del self._loaded[name]
            raise

    def run(self, name: str, feeds: dict[str, Any]) -> list[Any]:
        """All outputs of one graph."""
        session = self.load(name)
        with _naming_errors(name):
            results = self._limited(name, feeds, lambda options: session.run(None, feeds, options))
            return [np.array(one) for one in results]  # otherwise, they count for the limit of memory while they exist

    def run_bound(self, name: str, feeds: dict[str, Any], kept: Collection[int] = ()) -> list[Any]:
        """All outputs of one graph; those at the places in ``kept`` are OrtValues that stay on the device.

        ``feeds`` are arrays, which are copied to the device, or OrtValues on the device.
        """
        session = self.load(name)
        device = DEVICES[session.get_providers()[0]]
        names = [output.name for output in session.get_outputs()]
        with _naming_errors(name):
            binding = session.io_binding()
            for own, value in feeds.items():
                bind = binding.bind_ortvalue_input if isinstance(value, runtime().OrtValue) else binding.bind_cpu_input
                bind(own, value)
            for place, own in enumerate(names):
                binding.bind_output(own, device if place in kept else "cpu")
            binding.synchronize_inputs()  # running does not wait for the copies
            self._limited(name, feeds, lambda options: session.run_with_iobinding(binding, options))
            binding.synchronize_outputs()
            return [value if place in kept else value.numpy() for place, value in enumerate(binding.get_outputs())]

    def _limited(self, name: str, feeds: Mapping[str, Any], call: Callable[[Any], Result]) -> Result:
        """The result of ``call``, which gets the options of one run, within a time limit.

        The limit is proportional to the largest plausible work of a graph: the size of its weights times the number of
        positions (tokens for the transformer, pixels for others). A graph in a loop is ended then; a graph in the
        middle of a very large matrix product is abandoned.
        """
        shapes = [_shape(value) for own, value in feeds.items() if own != "codebook"]  # its rows are no images
        pixels, of_tokens = self._bundle.image_size**2, name in (STEP, GUIDE)
        places = (prod(shape[:2]) if of_tokens else prod(shape[:1]) * pixels for shape in shapes)
        seconds = run_seconds(self._bytes.get(name, 0), max(places, default=0))
        options = run_options(runtime(), self.load(name))

        def stop() -> None:
            options.terminate = True

        try:
            return within(seconds, lambda: call(options), stop)
        except TimeoutError as error:
            raise MedvarError(
                f"{name} of the bundle {self._bundle.path} was stopped: {error}, much longer than a graph of its size "
                "needs. It may be built to run forever. Use only bundles from sources that you trust."
            ) from error

    def _open(self, name: str) -> Any:
        content = self._added[name] if name in self._added else self._bundle.read(name)
        # If a table of files is given, even an unused one, the runtime looks for weights only there. Without it, the
        # runtime opens files that the graph names in the current folder, and their hashes are not known.
        table = {"": b"\0"}
        if name + DATA in self._bundle.sha256:
            if (self._bundle.path / (name + DATA)).is_symlink():
                raise MedvarError(f"{self._bundle.path / (name + DATA)} is a link. Replace it by the file itself.")
            table[name + DATA] = self._bundle.read(name + DATA)
        try:
            options = self._options(1 if name in self._added else self._threads)
            options.add_external_initializers_from_files_in_memory(
                list(table), list(table.values()), [len(data) for data in table.values()]
            )
            self._bytes[name] = len(content) + sum(map(len, table.values()))
            session = self._session(content, options, self._bytes[name])
            # Otherwise it keeps the file's bytes, to start again if a provider fails later: weights in memory twice.
            session.disable_fallback()
            session._model_bytes = None
            del content, table
            give_back()  # reading a graph needs three times the memory of its weights
            return session
        except Exception as error:  # onnxruntime has no exception type of its own
            raise MedvarError(f"ONNX Runtime cannot load {name} of the bundle {self._bundle.path}: {error}") from error

    def _session(self, content: bytes, options: Any, weights: int) -> Any:
        """Create a session within a time limit, because loading can run any part of the graph."""
        most, most_on_gpu = (
            run_bytes(weights, images * self._bundle.image_size**2, _PIXEL_BYTES) for images in (1, _IMAGES_ON_GPU)
        )
        return within(
            load_seconds(weights),
            lambda: open_session(
                runtime(),
                content,
                options,
                self._providers,
                most,
                weights=weights - len(content),
                most_on_gpu=most_on_gpu,
            ),
        )

    @staticmethod
    def _options(threads: int | None) -> Any:
        """Options of one session.

        The default number of threads is the runtime's own, one per physical core. Matrix products use a core's vector
        units fully, so a second thread on it is slower.
        """
        options = runtime().SessionOptions()
        options.log_severity_level = 4  # errors are raised, too
        # The arena of each graph would keep the largest amount that any call needed, rounded up to a power of two.
        # Without it, an image takes no longer.
        options.enable_cpu_mem_arena = False
        # Every graph has its own threads. Idle threads that spin take cores from the graph that runs: on two cores, an
        # image then takes 1.8 times as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            options.intra_op_num_threads = threads
        return options


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of an array or an OrtValue."""
    return tuple(value.shape() if callable(value.shape) else value.shape)


@contextmanager
def _naming_errors(name: str) -> Iterator[None]:
    """Turn errors of running a graph into a `MedvarError` with advice."""
    try:
        yield
    except MedvarError:
        raise
    except Exception as error:  # onnxruntime has no exception type of its own
        if "alloc" in str(error).lower() or "memory" in str(error).lower():
            raise MedvarError(
                f"There is not enough memory to run {name}, or it needs more than the limit for a network of its size. "
                "Generate fewer images at a time."
            ) from error
        raise MedvarError(f"ONNX Runtime failed to run {name}: {error}") from error


def runtime() -> Any:
    """The package onnxruntime. If it is missing, broken or too old, raises `MedvarError` with the command to fix it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MedvarError(f"Generating images needs ONNX Runtime, which is not installed. {_INSTALL}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MedvarError(
            "The installation of ONNX Runtime is broken, probably because both `onnxruntime` and `onnxruntime-gpu` are "
            f"installed. Uninstall both. {_INSTALL}"
        )
    if not hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"):
        raise MedvarError(
            f"ONNX Runtime {onnxruntime.__version__} is too old: before 1.24, an untrusted model could make it "
            f"open other files. {_INSTALL.replace('pip install', 'pip install --upgrade')}"
        )
    return onnxruntime


def providers(device: str) -> list[str]:
    """The execution providers to try, best first."""
    package = runtime()
    available = package.get_available_providers()
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if device not in ("auto", "cuda"):
        raise MedvarError(f"The device must be auto, cpu or cuda, but is {device!r}.")
    if "CUDAExecutionProvider" in available:
        if hasattr(package, "preload_dlls"):
            package.preload_dlls()
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    if device == "cuda":
        raise MedvarError(
            f"CUDA was requested, but ONNX Runtime offers only {', '.join(available)}. "
            "Install `napari-medvar[gpu]` instead of `[cpu]`, or use device cpu."
        )
    return ["CPUExecutionProvider"]
