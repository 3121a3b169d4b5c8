"""Checks and answers requests to single networks, which come from untrusted clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.backends.check_outputs import check_masks, check_tokens
from medvar_engine.errors import MedvarError
from medvar_engine.remote.messages import Message
from medvar_engine.serve.jobs import Job
from medvar_engine.types import FloatArray

Arrays = dict[str, npt.NDArray[Any]]
_FLOAT = 4  # bytes


class NetworkRequests:
    """Runs networks of ``backend`` for one job, for messages of at most ``rows`` rows."""

    def __init__(self, backend: Backend, job: Job, rows: int) -> None:
        self._backend, self._job, self._rows = backend, job, rows

    def step(self, message: Message) -> Arrays:
        """Labels ``(B, F)`` and scale features of scales 1…k ``(B, L_1 + … + L_k, C)`` → logits of scale k.

        They are those of the guide if the value ``guide`` is true.
        """
        info, content = self._backend.info, self._content(message)
        k = content.depth - 1
        self._hold(len(content.labels), info.schedule.token_counts[k] * info.vocabulary)
        guide = message.values.get("guide", False)
        if not isinstance(guide, bool):
            raise MedvarError(f"The value 'guide' must be true or false, but is {guide!r}.")
        if guide and not info.has_guide:
            raise MedvarError("The model of this server has no guide.")
        before = PrefixState(content.labels, content.chunks[:k], guide)
        return {"logits": self._backend.step(before, content.chunks[k] if k else None)[0]}

    def summary(self, message: Message) -> Arrays:
        """Like `step`, but returns `Backend.summary` of scales 0…k."""
        return {"summary": self._backend.summary(self._content(message))}

    def accumulate(self, message: Message) -> Arrays:
        """Tokens ``(B, L_k)``, the value ``scale`` and, except for scale 0, a latent; see `Backend.accumulate`."""
        info, k = self._backend.info, message.values.get("scale")
        if type(k) is not int:
            raise MedvarError(f"The value 'scale' must be a whole number, but is {k!r}.")
        tokens = message.array("tokens", "int64", (None, info.schedule.token_counts[info.schedule.check_scale(k)]))
        check_tokens(info, tokens)
        rows = self._check_rows(len(tokens))
        latent = self._latent(message, rows) if "latent" in message.arrays else None
        self._hold(rows, 2 * info.schedule.latent_side**2 * info.latent_channels)
        total, scale_features = self._backend.accumulate(latent, tokens, k)
        return {"latent": total} if scale_features is None else {"latent": total, "features": scale_features}

    def encode(self, message: Message) -> Arrays:
        """Images ``(B, image channels, H, W)`` → the tokens of all scales ``(B, tokens)``."""
        info = self._backend.info
        images = message.array("images", "float32", (None, info.channels, info.image_size, info.image_size))
        self._check_rows(len(images))
        if np.abs(images[:, : info.image_channels]).max() > 1 + 1e-3:
            raise MedvarError("Images to encode must be within [-1, 1]; harmonise them first.")
        check_masks("The message", info, images)
        return {"tokens": np.concatenate(self._backend.encode(images), axis=1)}

    def decode(self, message: Message) -> Arrays:
        """A latent ``(B, C, H, W)`` and the value ``preview`` → images."""
        info, latent = self._backend.info, self._latent(message, None)
        self._hold(self._check_rows(len(latent)), info.channels * info.image_size**2)
        return {"images": self._backend.decode(latent, preview=message.values.get("preview") is True)}

    # -- internals --------------------------------------------------------------------------------------------------

    def _content(self, message: Message) -> PrefixState:
        """Labels and the input of scales 0…k, in which k follows from the number of features."""
        info = self._backend.info
        labels = message.array("labels", "int64", (None, len(info.labels.sizes)))
        rows = self._check_rows(len(labels))
        for label in np.unique(labels, axis=0).tolist():
            info.labels.decode(label)  # raises for unknown labels
        scale_features = message.array("features", "float32", (rows, None, info.feature_channels))
        ends = [end - info.schedule.offsets[1] for end in info.schedule.offsets[1:]]
        if scale_features.shape[1] not in ends:
            raise MedvarError(f"Features must be of complete scales, {ends} tokens, not {scale_features.shape[1]}.")
        return PrefixState(labels, tuple(np.split(scale_features, ends[: ends.index(scale_features.shape[1])], axis=1)))

    def _latent(self, message: Message, rows: int | None) -> FloatArray:
        side, channels = self._backend.info.schedule.latent_side, self._backend.info.latent_channels
        latent: FloatArray = message.array("latent", "float32", (rows, channels, side, side))
        return latent

    def _check_rows(self, rows: int) -> int:
        if not 0 < rows <= self._rows:
            raise MedvarError(f"A request can have 1 to {self._rows} rows, but this one has {rows}.")
        return rows

    def _hold(self, rows: int, numbers: int) -> None:
        """Reserve memory for a response with ``numbers`` values per row before it is computed."""
        self._job.share.take(rows * numbers * _FLOAT)


CALLS: Mapping[str, Callable[[NetworkRequests, Message], Arrays]] = {
    "step": NetworkRequests.step,
    "summary": NetworkRequests.summary,
    "accumulate": NetworkRequests.accumulate,
    "encode": NetworkRequests.encode,
    "decode": NetworkRequests.decode,
}
