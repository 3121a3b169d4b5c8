"""`Generation`: a batch of images in the making, as an immutable value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvar_engine.arrays import BoolArray, FloatArray, IntArray
from medvar_engine.pyramid import TokenPyramid
from medvar_engine.trace import Edit, Request, Trace


@dataclass(frozen=True, eq=False, slots=True)
class Held:
    """Tokens of one image that are not drawn but taken from ``tokens``, where ``keep`` is true."""

    keep: BoolArray  # (L_k,) of one scale
    tokens: IntArray  # (L_k,)


@dataclass(frozen=True, eq=False, slots=True)
class Generation:
    """B images, each with its own request, and the scales made so far.

    ``latents[k]`` is the latent after scale k, from which the preview of scale k is decoded; ``features`` are the
    input of the next scale. Both follow from the pyramid, and are kept so that nothing is computed twice.
    """

    requests: tuple[Request, ...]
    pyramid: TokenPyramid
    entropy: tuple[FloatArray, ...]  # bits a token, (B, side, side) a scale
    latents: tuple[FloatArray, ...]  # (B, C, H, W) a scale
    features: FloatArray | None  # (B, L_k, C); None before the first scale and after the last
    model: str
    held: tuple[tuple[Held | None, ...], ...] = ()  # an image's scales; empty when nothing is held
    edits: tuple[Edit | None, ...] = ()
    parents: tuple[Trace | None, ...] = ()

    @property
    def depth(self) -> int:
        """Scales made so far."""
        return self.pyramid.depth

    @property
    def complete(self) -> bool:
        """Whether every scale is there."""
        return self.pyramid.complete

    def trace(self, image: int) -> Trace:
        """One image's part that is kept and written to files."""
        return Trace(
            self.requests[image],
            self.pyramid.select([image]),
            tuple(np.ascontiguousarray(scale[image]) for scale in self.entropy),
            self.model,
            self.edits[image] if self.edits else None,
            self.parents[image] if self.parents else None,
        )

    @property
    def traces(self) -> tuple[Trace, ...]:
        """All images' traces."""
        return tuple(self.trace(image) for image in range(self.pyramid.batch))
