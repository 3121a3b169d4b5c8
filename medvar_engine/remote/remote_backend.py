"""`RemoteBackend`: runs the networks of a bundle on another computer with `medvar serve`.

The server keeps no state that a client depends on. Each step sends the labels and the scale features of all earlier
scales, which are small compared with the returned logits. The cache of the server only saves work.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.backends.base import PrefixState
from medvar_engine.backends.bundle_info import info_of
from medvar_engine.backends.check_outputs import check_masks
from medvar_engine.bundle.read import MANIFEST, Bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.remote.connection import PROTOCOL, Server
from medvar_engine.remote.scale_input import extended, gather_inputs
from medvar_engine.types import FloatArray, IntArray

Arrays = Mapping[str, npt.NDArray[Any]]
Expected = dict[str, tuple[str, tuple[int, ...]]]
"""The type and the shape, without the rows, of each expected array."""


class RemoteBackend:
    """A `Backend` with networks that run on a server. Sampling and edits run locally, with the same results.

    A chunk of a prefix state is the input of its scale, see `scale_input`; it has no tokens at scale 0.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        about = server.get_json("model")
        if about.get("medvar_serve") != PROTOCOL:
            raise MedvarError(
                f"{server.address} uses version {about.get('medvar_serve')} of the protocol, but this medvar uses "
                f"version {PROTOCOL}. Update medvar on both computers."
            )
        folder = Path(tempfile.mkdtemp(prefix="medvar-served-"))
        weakref.finalize(self, _leave, server, folder)
        self.bundle = _fetched(server, folder)
        bundle = self.bundle
        try:
            provider, model = str(about["provider"]), str(about["model"])
            self._most_rows, self._most_bytes = int(about["rows"]), int(about["body"])
        except (KeyError, TypeError, ValueError) as error:
            raise MedvarError(
                f"{server.address} sent an invalid description of its model and limits: {error!r}."
            ) from error
        if model != bundle.bundle_id:
            raise MedvarError(f"{server.address} names the model {model[:12]}…, which does not match its bundle.")
        self.info = info_of(bundle, f"{provider} at {server.address}")

    @cached_property
    def codebook(self) -> FloatArray | None:
        """See `Backend`."""
        return self.bundle.codebook()

    def start(self, labels: IntArray, *, guide: bool = False) -> PrefixState:
        """See `Backend`."""
        return PrefixState(labels, guide=guide)

    def step(self, state: PrefixState, scale_features: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        """See `Backend`."""
        longer = extended(state, scale_features, self.info.feature_channels)
        shape = (self.info.schedule.token_counts[state.depth], self.info.vocabulary)
        return self._of_prefix("step", longer, {"logits": ("float32", shape)})["logits"], longer

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """See `Backend`."""
        return gather_inputs(rows)

    def summary(self, state: PrefixState) -> FloatArray:
        """See `Backend`."""
        shape = self.bundle.transformer
        width = 2 * shape["heads"] * shape["head_dim"]
        expected: Expected = {"summary": ("float32", (state.depth, shape["depth"], width))}
        return self._of_prefix("summary", state, expected)["summary"]

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """See `Backend`."""
        info, schedule = self.info, self.info.schedule
        side, last = schedule.latent_side, k + 1 == len(schedule)
        expected: Expected = {"latent": ("float32", (info.latent_channels, side, side))}
        if not last:
            expected["features"] = ("float32", (schedule.token_counts[k + 1], info.feature_channels))
        sent: Arrays = {"tokens": tokens} if latent is None else {"tokens": tokens, "latent": latent}
        got = self._call("accumulate", sent, expected, scale=k)
        return got["latent"], None if last else got["features"]

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """See `Backend`."""
        tokens = self._call("encode", {"images": images}, {"tokens": ("int64", (self.info.schedule.tokens,))})["tokens"]
        return tuple(np.split(tokens, self.info.schedule.offsets[1:-1], axis=1))

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """See `Backend`."""
        shape = (self.info.channels, self.info.image_size, self.info.image_size)
        images: FloatArray = self._call("decode", {"latent": latent}, {"images": ("float32", shape)}, preview=preview)[
            "images"
        ]
        check_masks("The server's decoder", self.info, images)
        return images

    def _of_prefix(self, name: str, state: PrefixState, expected: Expected) -> dict[str, npt.NDArray[Any]]:
        """`_call` with the labels and inputs of a prefix state."""
        sent: Arrays = {"labels": state.labels, "features": np.concatenate(state.chunks, axis=1)}
        return self._call(name, sent, expected, **({"guide": True} if state.guide else {}))

    def _call(self, name: str, arrays: Arrays, expected: Expected, **values: Any) -> dict[str, npt.NDArray[Any]]:
        """Run one of the server's networks, with as many rows at a time as it allows."""
        parts = []
        for rows in self._blocks(arrays):
            sent = {key: array[rows] for key, array in arrays.items()}
            count = len(next(iter(sent.values())))
            limit = count * sum(8 * int(np.prod(shape, dtype=np.int64)) for _, shape in expected.values())
            message = self._server.call(name, values, sent, model=self.info.bundle_id, limit=limit)
            parts.append({key: message.array(key, kind, (count, *shape)) for key, (kind, shape) in expected.items()})
        if len(parts) == 1:
            return parts[0]
        return {key: np.concatenate([part[key] for part in parts]) for key in expected}

    def _blocks(self, arrays: Arrays) -> Iterator[slice]:
        rows = len(next(iter(arrays.values())))
        row_bytes = sum(array.nbytes for array in arrays.values()) // max(1, rows)
        size = max(1, min(self._most_rows, (self._most_bytes - 2**16) // max(1, row_bytes)))
        return (slice(first, first + size) for first in range(0, rows, size))


def _fetched(server: Server, folder: Path) -> Bundle:
    """Download the bundle of a server, without its graphs, to ``folder``."""
    (folder / MANIFEST).write_bytes(server.get(f"bundle/{MANIFEST}"))
    bundle = read_bundle(folder)  # also checks the names of its files
    for name in served_files(bundle):
        (folder / name).write_bytes(server.get(f"bundle/{name}"))
    return bundle


def _leave(server: Server, folder: Path) -> None:
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


def served_files(bundle: Bundle) -> list[str]:
    """The files of a bundle that clients get: card, codebook and training index, but not the networks."""
    return [name for name in bundle.sha256 if not name.endswith((".onnx", ".onnx.data"))]
