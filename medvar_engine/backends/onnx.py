"""The ONNX Runtime backend: runs a bundle on CUDA if available, otherwise on the CPU, and reports which it uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medvar_engine.backends.base import PrefixState, average_tokens, gather_rows
from medvar_engine.backends.bundle_info import info_of
from medvar_engine.backends.check_outputs import check_masks, check_outputs, check_tokens, odd_output
from medvar_engine.backends.device_key_value_cache import DeviceMemory
from medvar_engine.backends.key_value_cache import HostMemory, KeyValueMemory
from medvar_engine.backends.onnx_sessions import DEVICES, Sessions, providers
from medvar_engine.bundle.read import ENCODE, GUIDE, PREVIEW, STEP, Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray, IntArray

# Tokens of all rows that pass through a network together on a CPU. With more tokens, activations no longer fit into its
# caches: throughput rises little up to this value and falls beyond it (measured by benchmarks/generate.py). Twice as
# many tokens take no less time, and a tenth more memory for 8 images. Rows do not depend on each other.
BLOCK = 512


class OnnxBackend:
    """Runs the graphs of a bundle. The transformer is loaded at once, and the other graphs in the background."""

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        self._bundle = bundle
        self._codebook = bundle.codebook()
        self._sessions = Sessions(bundle, providers(device), threads)
        step = self._sessions.load(STEP)
        if (
            device == "cuda" and step.get_providers()[0] != "CUDAExecutionProvider"
        ):  # ONNX Runtime itself does not report this
            raise MedvarError(
                "CUDA was requested, but ONNX Runtime could not start it. Check that the driver and CUDA have "
                "the version that `onnxruntime-gpu` was built for, or use device cpu."
            )
        self._takes_positions = self._takes(STEP, "positions")
        self.info = info_of(bundle, f"ONNX Runtime, {step.get_providers()[0]}")
        on_device = step.get_providers()[0] in DEVICES
        self._memory: KeyValueMemory = DeviceMemory(self._sessions) if on_device else HostMemory(self._sessions)
        self._block = None if on_device else BLOCK
        light = [PREVIEW] if self.info.light_previews else []
        guide = [GUIDE] if self.info.has_guide else []
        accumulate = [f"accumulate_{k}.onnx" for k in range(len(bundle.schedule))]
        self._sessions.warm([*guide, *accumulate, *light, "decode.onnx"])

    @property
    def codebook(self) -> FloatArray | None:
        """See `Backend`."""
        return self._codebook

    def start(self, labels: IntArray, *, guide: bool = False) -> PrefixState:
        """See `Backend`."""
        return PrefixState(labels, guide=guide)

    def step(self, state: PrefixState, scale_features: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        """See `Backend`."""
        count, channels = self.info.schedule.token_counts[state.depth], self.info.feature_channels
        if scale_features is None:  # the first scale's input is the condition; the graph ignores these zeros
            scale_features = np.zeros((len(state.labels), count, channels), dtype=np.float32)
        parts: list[Any] = []

        def logits_of(rows: slice) -> FloatArray:
            logits, part = self._step(state, scale_features, rows)
            parts.append(part)
            return logits

        logits = _joined(map(logits_of, self._blocks(len(scale_features), count)), len(scale_features))
        return logits, state.longer(self._memory.chunk(parts))

    def _step(self, state: PrefixState, scale_features: FloatArray, rows: slice) -> tuple[FloatArray, Any]:
        """Logits, and keys and values, of some rows."""
        graph, shape = (GUIDE, self._bundle.guide) if state.guide else (STEP, self._bundle.transformer)
        assert shape is not None, "this bundle has no guide"
        labels = state.labels[rows]
        if state.chunks:
            past = self._memory.join(state.chunks, rows)
        else:
            past = np.zeros((shape["depth"], 2, len(labels), shape["heads"], 0, shape["head_dim"]), dtype=np.float32)
        begin, end = self.info.schedule.offsets[state.depth : state.depth + 2]
        if self._takes_positions:
            place = {"positions": np.tile(np.arange(begin, end, dtype=np.int64), (len(labels), 1))}
        else:  # graphs of older exports need the position of the scale only
            place = {"offset": np.array(begin, dtype=np.int64)}
        outputs = self._memory.run(graph, {"labels": labels, "features": scale_features[rows], "past": past, **place})
        keys_values = (shape["depth"], 2, len(labels), shape["heads"], end - begin, shape["head_dim"])
        wanted = {"logits": (len(labels), end - begin, self.info.vocabulary), "keys and values": keys_values}
        logits, present = check_outputs(graph, outputs, wanted)
        return logits, present

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """See `Backend`."""
        return gather_rows(rows, self._memory.gather)

    def summary(self, state: PrefixState) -> FloatArray:
        """See `Backend`."""
        return average_tokens(state, self._memory.average)

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """See `Backend`."""
        if latent is None:
            latent = self.info.no_latent(len(tokens))
        graph, schedule = f"accumulate_{k}.onnx", self.info.schedule
        parts = []
        for rows in self._blocks(len(tokens), schedule.token_counts[-1]):
            wanted = {"latents": latent[rows].shape}
            if k + 1 < len(schedule):
                features = (len(tokens[rows]), schedule.token_counts[k + 1], self.info.feature_channels)
                wanted["scale features"] = features
            outputs = self._sessions.run(graph, {"latent": latent[rows], "tokens": tokens[rows]})
            parts.append(check_outputs(graph, outputs, wanted))
        total, *scale_features = (np.concatenate(part) for part in zip(*parts, strict=True))
        return total, scale_features[0] if scale_features else None

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """See `Backend`."""
        constants: dict[str, FloatArray] = {}
        if self._takes(ENCODE, "codebook"):
            if self._codebook is None or self._codebook.ndim != 3:
                raise MedvarError(
                    f"{ENCODE} needs a codebook of each scale, which this bundle lacks. Get it from its source again."
                )
            constants["codebook"] = self._codebook
        tokens = self._in_blocks(ENCODE, "image", images, "tokens", (self.info.schedule.tokens,), "i", constants)
        check_tokens(self.info, tokens)
        return tuple(np.split(tokens, self.info.schedule.offsets[1:-1], axis=1))

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """See `Backend`. Previews use the light decoder if the bundle has one."""
        light = preview and self.info.light_previews
        graph = PREVIEW if light else "decode.onnx"
        shape = (self.info.channels, self.info.image_size, self.info.image_size)
        images: FloatArray = self._in_blocks(graph, "latent", latent, "images", shape, "f", {})
        if not np.isfinite(images).all():
            raise odd_output(graph, "images with numbers that are not finite")
        check_masks(graph, self.info, images)
        return images

    def _takes(self, graph: str, name: str) -> bool:
        """Whether a graph has an input of this name; graphs of older exports lack some."""
        return any(one.name == name for one in self._sessions.load(graph).get_inputs())

    def _in_blocks(
        self,
        graph: str,
        name: str,
        batch: FloatArray,
        result: str,
        shape: tuple[int, ...],
        kind: str,
        constants: Mapping[str, FloatArray],
    ) -> Any:
        """The output ``result`` of a graph for a ``batch`` of its input ``name``; each row has this shape and kind.

        ``constants`` are inputs that do not depend on the batch.
        """

        def run(rows: slice) -> Any:
            outputs = self._sessions.run(graph, {name: batch[rows], **constants})
            return check_outputs(graph, outputs, {result: (len(batch[rows]), *shape)}, kind)[0]

        return _joined(map(run, self._blocks(len(batch), self.info.schedule.token_counts[-1])), len(batch))

    def _blocks(self, rows: int, tokens: int) -> Iterator[slice]:
        """All rows, of ``tokens`` tokens each, in blocks that fit into the processor's caches.

        The number of rows of a block is a power of two, so that no block of a fine scale needs rows of two blocks of a
        coarser scale.
        """
        size = rows if self._block is None else 1 << (max(1, self._block // tokens).bit_length() - 1)
        return (slice(first, first + size) for first in range(0, rows, size))


def _joined(parts: Iterator[Any], rows: int) -> Any:
    """Parts of all ``rows`` joined to one array. Each part is freed before the next is computed, to limit memory.

    The shape of every part must have been checked by `check_outputs`.
    """
    whole, first = None, 0
    for part in parts:
        if len(part) == rows:
            return part
        if whole is None:
            whole = np.empty((rows, *part.shape[1:]), part.dtype)
        whole[first : first + len(part)] = part
        first += len(part)
        del part
    return whole
