"""`Networks`: a backend for strangers. Every call carries all that it follows from, and is checked.

What a prefix was made of, its labels and input features, is its name: a client that sends them again gets the same
prefix, remembered or computed anew, and nobody can name another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.backends.messages import Message
from medvar_engine.checks import check_tokens
from medvar_engine.errors import MedvarError
from medvar_engine.prefix_cache import Key, PrefixCache

Arrays = dict[str, npt.NDArray[Any]]
BeforeScale = Callable[[], None]


class Networks:
    """The networks of ``backend``, of messages. One call at a time.

    Each call takes a `Message` and what is called before a scale is run, which may raise. ``rows`` is the most that a
    message may hold.
    """

    def __init__(self, backend: Backend, cache: PrefixCache, rows: int) -> None:
        self._backend, self._cache, self._rows = backend, cache, rows
        self.calls: dict[str, Callable[[Message, BeforeScale], Arrays]] = {
            "step": self.step,
            "summary": self.summary,
            "accumulate": self.accumulate,
            "encode": self.encode,
            "decode": self.decode,
        }

    def step(self, message: Message, before_scale: BeforeScale) -> Arrays:
        """Labels ``(B, F)`` and features of scales 1…k ``(B, L_1 + … + L_k, C)`` → logits of scale k."""
        labels, features, k = self._content(message)
        logits, state = self._scale(labels, features, k, before_scale)
        if k + 1 < len(self._backend.info.schedule):  # nothing follows the finest scale
            self._cache.put(_keys(labels, features, k + 1), state)
        return {"logits": logits}

    def summary(self, message: Message, before_scale: BeforeScale) -> Arrays:
        """As `step`, and gives `Backend.summary` of scales 0…k."""
        labels, features, k = self._content(message)
        return {"summary": self._backend.summary(self._prefix(labels, features, k + 1, before_scale))}

    def accumulate(self, message: Message, before_scale: BeforeScale) -> Arrays:
        """Tokens ``(B, L_k)``, the value ``scale`` and, but for scale 0, a latent: see `Backend.accumulate`."""
        info, k = self._backend.info, message.values.get("scale")
        if type(k) is not int:
            raise MedvarError(f"The value 'scale' must be a whole number, but is {k!r}.")
        tokens = message.array("tokens", "int64", (None, info.schedule.token_counts[info.schedule.check_scale(k)]))
        check_tokens(info, tokens)
        rows = self._check_rows(len(tokens))
        latent = self._latent(message, rows) if "latent" in message.arrays else None
        total, features = self._backend.accumulate(latent, tokens, k)
        return {"latent": total} if features is None else {"latent": total, "features": features}

    def encode(self, message: Message, before_scale: BeforeScale) -> Arrays:
        """Images ``(B, image channels, H, W)`` → the tokens of all scales ``(B, tokens)``."""
        info = self._backend.info
        images = message.array("images", "float32", (None, info.image_channels, info.image_size, info.image_size))
        self._check_rows(len(images))
        if np.abs(images).max() > 1 + 1e-3:
            raise MedvarError("Images to encode must be within [-1, 1]; harmonise them first.")
        return {"tokens": np.concatenate(self._backend.encode(images), axis=1)}

    def decode(self, message: Message, before_scale: BeforeScale) -> Arrays:
        """A latent ``(B, C, H, W)`` and the value ``preview`` → images."""
        latent = self._latent(message, None)
        self._check_rows(len(latent))
        return {"images": self._backend.decode(latent, preview=message.values.get("preview") is True)}

    # -- how ----------------------------------------------------------------------------------------------------

    def _content(self, message: Message) -> tuple[IntArray, list[FloatArray], int]:
        """Labels, the features of scales 1…k, and k, which the number of features tells."""
        info = self._backend.info
        labels = message.array("labels", "int64", (None, len(info.labels.sizes)))
        rows = self._check_rows(len(labels))
        for label in np.unique(labels, axis=0).tolist():
            info.labels.decode(label)  # raises for what the model does not know
        features = message.array("features", "float32", (rows, None, info.latent_channels))
        ends = [end - info.schedule.offsets[1] for end in info.schedule.offsets[1:]]
        if features.shape[1] not in ends:
            raise MedvarError(f"Features are of whole scales, {ends} tokens, but got {features.shape[1]}.")
        k = ends.index(features.shape[1])
        return labels, np.split(features, ends[1:k], axis=1) if k else [], k

    def _scale(
        self, labels: IntArray, features: Sequence[FloatArray], k: int, before_scale: BeforeScale
    ) -> tuple[FloatArray, PrefixState]:
        """Scale k: its logits, and the prefix with it."""
        state = self._prefix(labels, features, k, before_scale)
        before_scale()
        return self._backend.step(state, np.ascontiguousarray(features[k - 1]) if k else None)

    def _prefix(
        self, labels: IntArray, features: Sequence[FloatArray], depth: int, before_scale: BeforeScale
    ) -> PrefixState:
        """The prefix of ``depth`` scales: remembered, or computed again."""
        if not depth:
            return self._backend.start(labels)
        keys = _keys(labels, features, depth)
        known = dict(zip(keys, self._cache.get(keys), strict=True))
        if lost := [row for row, key in enumerate(keys) if known[key] is None and keys.index(key) == row]:
            _, state = self._scale(labels[lost], [scale[lost] for scale in features], depth - 1, before_scale)
            self._cache.put([keys[row] for row in lost], state)
            known |= {keys[row]: (state, place) for place, row in enumerate(lost)}
        return self._backend.gather([found for key in keys if (found := known[key])])

    def _latent(self, message: Message, rows: int | None) -> FloatArray:
        side, channels = self._backend.info.schedule.latent_side, self._backend.info.latent_channels
        latent: FloatArray = message.array("latent", "float32", (rows, channels, side, side))
        return latent

    def _check_rows(self, rows: int) -> int:
        if not 0 < rows <= self._rows:
            raise MedvarError(f"A request holds 1 to {self._rows} rows, but this one has {rows}.")
        return rows


def _keys(labels: IntArray, features: Sequence[FloatArray], depth: int) -> list[Key]:
    """Names of the prefixes of ``depth`` scales, whose input are features 1…depth-1."""
    hashes = [hashlib.sha256() for _ in labels]
    for scale in features[: depth - 1]:
        for own, row in zip(hashes, scale, strict=True):
            own.update(row.tobytes())
    return [Key("", tuple(label), depth, own.digest()) for label, own in zip(labels.tolist(), hashes, strict=True)]
