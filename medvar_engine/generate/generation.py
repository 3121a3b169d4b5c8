"""`Generation`: a batch of unfinished or finished images, as an immutable value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvar_engine.generate.frozen_tokens import FrozenTokens
from medvar_engine.generate.inversion import Inversion
from medvar_engine.generate.trace import Edit, Request, Trace
from medvar_engine.tokens.pyramid import TokenPyramid
from medvar_engine.types import FloatArray


@dataclass(frozen=True, eq=False, slots=True)
class Generation:
    """B images, each with its own request, and their scales so far.

    ``latents[k]`` is the latent after scale k, from which the preview of scale k is decoded; ``features`` are the
    input of the next scale. Both follow from the pyramid, and are stored so that nothing is computed twice.
    """

    requests: tuple[Request, ...]
    pyramid: TokenPyramid
    entropy: tuple[FloatArray, ...]  # bits per token, (B, side, side) per scale
    latents: tuple[FloatArray, ...]  # (B, C, H, W) per scale
    scale_features: FloatArray | None  # (B, L_k, C); None before the first scale and after the last
    bundle_id: str
    frozen: tuple[tuple[FrozenTokens | None, ...], ...] = ()  # per image and scale; empty if no tokens are frozen
    inversions: tuple[Inversion | None, ...] = ()  # per image; empty if all noise is from seeds
    edits: tuple[Edit | None, ...] = ()
    parents: tuple[Trace | None, ...] = ()

    @property
    def depth(self) -> int:
        """Number of scales so far."""
        return self.pyramid.depth

    @property
    def complete(self) -> bool:
        """Whether all scales are drawn."""
        return self.pyramid.complete

    def trace(self, image: int) -> Trace:
        """The trace of one image, as it is written to files."""
        return Trace(
            self.requests[image],
            self.pyramid.select([image]),
            tuple(np.ascontiguousarray(scale[image]) for scale in self.entropy),
            self.bundle_id,
            self.edits[image] if self.edits else None,
            self.parents[image] if self.parents else None,
        )

    def select(self, images: Sequence[int]) -> Generation:
        """Some of the images, in the given order."""
        index = np.asarray(images, dtype=np.intp)
        return replace(
            self,
            requests=tuple(self.requests[i] for i in images),
            pyramid=self.pyramid.select(images),
            entropy=tuple(scale[index] for scale in self.entropy),
            latents=tuple(latent[index] for latent in self.latents),
            scale_features=None if self.scale_features is None else self.scale_features[index],
            frozen=tuple(self.frozen[i] for i in images) if self.frozen else (),
            inversions=tuple(self.inversions[i] for i in images) if self.inversions else (),
            edits=tuple(self.edits[i] for i in images) if self.edits else (),
            parents=tuple(self.parents[i] for i in images) if self.parents else (),
        )

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The traces of all images."""
        return tuple(self.trace(image) for image in range(self.pyramid.batch))
