"""The ONNX Runtime backend: runs a bundle on CUDA when it is there, on the CPU otherwise, and says which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import BackendInfo, PrefixState, average_tokens, gather_rows
from medvar_engine.bundle import Bundle
from medvar_engine.errors import MedvarError

_INSTALL = (
    "Install it with `pip install 'napari-medvar[cpu]'`, or, for an NVIDIA GPU, `pip install 'napari-medvar[gpu]'` "
    "(one of the two, never both)."
)

# Tokens of all rows that go through a network together on a CPU: with more, activations fall out of its caches. The
# rate rises little up to here and falls beyond; benchmarks/generate.py measures it. Rows do not depend on each other.
BLOCK = 1024


class OnnxBackend:
    """The graphs of a bundle. Each is checked by hash and loaded from memory."""

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        self._bundle = bundle
        self._codebook = bundle.codebook()
        self._sessions = _Sessions(bundle, _providers(device), threads)
        step = self._sessions.load("step.onnx")
        if device == "cuda" and step.get_providers()[0] != "CUDAExecutionProvider":  # the runtime itself says nothing
            raise MedvarError(
                "CUDA was asked for, but ONNX Runtime could not start it here. Check that the driver and CUDA are of "
                "the version that `onnxruntime-gpu` was built for, or use device cpu."
            )
        self.info = BackendInfo(
            provider=f"ONNX Runtime, {step.get_providers()[0]}",
            precision=bundle.precision,
            schedule=bundle.schedule,
            labels=bundle.labels,
            vocabulary=bundle.vocabulary,
            latent_channels=bundle.latent_channels,
            image_size=bundle.image_size,
            image_channels=bundle.image_channels,
            model=bundle.digest,
            weights=bundle.weights,
        )
        self._block = BLOCK if step.get_providers()[0] == "CPUExecutionProvider" else None
        # What generation needs is loaded now, so that the first image is not slower than the others.
        for name in (*(f"accumulate_{k}.onnx" for k in range(len(bundle.schedule))), "decode.onnx"):
            self._sessions.load(name)

    @property
    def codebook(self) -> FloatArray | None:
        """See `Backend`."""
        return self._codebook

    def start(self, labels: IntArray) -> PrefixState:
        """See `Backend`."""
        return PrefixState(labels)

    def step(self, state: PrefixState, maps: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        """See `Backend`."""
        count, channels = self.info.schedule.token_counts[state.depth], self.info.latent_channels
        if maps is None:  # the first scale's input is the condition; the graph ignores these zeros
            maps = np.zeros((len(state.labels), count, channels), dtype=np.float32)
        parts = [self._step(state, maps, rows) for rows in self._blocks(len(maps), count)]
        logits, chunks = zip(*parts, strict=True)
        return _joined(logits, 0), state.longer(_joined(chunks, 2))

    def _step(self, state: PrefixState, maps: FloatArray, rows: slice) -> list[FloatArray]:
        """Logits, keys and values of some rows."""
        shape, labels = self._bundle.transformer, state.labels[rows]
        if state.chunks:
            past = np.concatenate([chunk[:, :, rows] for chunk in state.chunks], axis=4)
        else:
            past = np.zeros((shape["depth"], 2, len(labels), shape["heads"], 0, shape["head_dim"]), dtype=np.float32)
        offset = np.array(self.info.schedule.offsets[state.depth], dtype=np.int64)
        feeds = {"labels": labels, "features": maps[rows], "past": past, "offset": offset}
        return self._sessions.run("step.onnx", feeds)

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """See `Backend`."""
        return gather_rows(rows, np.concatenate)

    def summary(self, state: PrefixState) -> FloatArray:
        """See `Backend`."""
        return average_tokens(state, np.asarray)

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """See `Backend`."""
        if latent is None:
            side = self.info.schedule.latent_side
            latent = np.zeros((len(tokens), self.info.latent_channels, side, side), dtype=np.float32)
        total, features = self._sessions.run(f"accumulate_{k}.onnx", {"latent": latent, "tokens": tokens})
        return total, features if k + 1 < len(self.info.schedule) else None

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """See `Backend`."""
        tokens = self._in_blocks("encode.onnx", "image", images)
        return tuple(np.split(tokens, self.info.schedule.offsets[1:-1], axis=1))

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """See `Backend`. Previews use the full decoder."""
        images: FloatArray = self._in_blocks("decode.onnx", "latent", latent)
        return images

    def _in_blocks(self, graph: str, name: str, batch: FloatArray) -> Any:
        """The one output of a graph with one input."""
        blocks = self._blocks(len(batch), self.info.schedule.token_counts[-1])
        return _joined([self._sessions.run(graph, {name: batch[rows]})[0] for rows in blocks], 0)

    def _blocks(self, rows: int, tokens: int) -> Iterator[slice]:
        """All rows, each of so many tokens, in parts that the processor's caches hold."""
        size = rows if self._block is None else max(1, self._block // tokens)
        return (slice(first, first + size) for first in range(0, rows, size))


def _joined(parts: Sequence[Any], axis: int) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


class _Sessions:
    """The bundle's graphs as sessions, each loaded when it is first asked for."""

    def __init__(self, bundle: Bundle, providers: list[str], threads: int | None) -> None:
        self._bundle, self._providers = bundle, providers
        self._loaded: dict[str, Any] = {}
        runtime = _runtime()
        self._options = runtime.SessionOptions()
        self._options.log_severity_level = 3
        # Every graph has threads of its own. Idle ones that spin take the cores from the graph that runs: on two
        # cores an image takes 1.8 times as long.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            self._options.intra_op_num_threads = threads

    def load(self, name: str) -> Any:
        if name not in self._loaded:
            content = self._bundle.read(name)
            try:
                self._loaded[name] = _runtime().InferenceSession(content, self._options, providers=self._providers)
            except Exception as error:  # onnxruntime has no exception type of its own
                raise MedvarError(
                    f"ONNX Runtime cannot load {name} of the bundle {self._bundle.path}: {error}"
                ) from error
        return self._loaded[name]

    def run(self, name: str, feeds: dict[str, Any]) -> list[Any]:
        try:
            return self.load(name).run(None, feeds)  # type: ignore[no-any-return]
        except MedvarError:
            raise
        except Exception as error:
            if "alloc" in str(error).lower() or "memory" in str(error).lower():
                raise MedvarError(f"Not enough memory to run {name}: generate fewer images at a time.") from error
            raise MedvarError(f"ONNX Runtime failed to run {name}: {error}") from error


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MedvarError(f"Generating images needs ONNX Runtime, which is not installed. {_INSTALL}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MedvarError(
            "ONNX Runtime is broken here: `onnxruntime` and `onnxruntime-gpu` are probably both installed. "
            f"Uninstall both. {_INSTALL}"
        )
    return onnxruntime


def _providers(device: str) -> list[str]:
    """The execution providers to try, best first."""
    runtime = _runtime()
    available = runtime.get_available_providers()
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if device not in ("auto", "cuda"):
        raise MedvarError(f"A device is auto, cpu or cuda, not {device!r}.")
    if "CUDAExecutionProvider" in available:
        if hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    if device == "cuda":
        raise MedvarError(
            f"CUDA was asked for, but ONNX Runtime offers only {', '.join(available)}. "
            "Install `napari-medvar[gpu]` in place of `[cpu]`, or use device cpu."
        )
    return ["CPUExecutionProvider"]
