"""What a session shows of pictures in the making, and the cache of what it has decoded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from medvar_engine.generate.composite import picture_name
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray
from medvar_engine.types import FloatArray
from napari_medvar.session.trace_tree import Node

KEPT_PREVIEWS = 200  # decoded pictures; 256 KiB each at 256×256


@dataclass(frozen=True, eq=False, slots=True)
class Preview:
    """The picture decoded from scales ``0…k`` of a node."""

    node: Node
    k: int
    pixels: FloatArray  # (H, W), or (H, W, 3), in [-1, 1]
    mask: MaskArray | None = None  # (H, W), the structure of each pixel; None of a model without masks

    @property
    def generation(self) -> Generation:
        """The picture in the making, of one image."""
        return self.node.generation

    @property
    def newest(self) -> bool:
        """Whether no finer scale has been made yet."""
        return self.k + 1 == self.generation.depth

    @property
    def trace(self) -> Trace:
        """What made the picture."""
        return self.node.trace


@dataclass(frozen=True, eq=False, slots=True)
class Progress:
    """A scale was made, and its picture not decoded."""

    node: Node


@dataclass(frozen=True, eq=False, slots=True)
class Candidates:
    """N continuations of one picture to choose from, made up to scale k. No nodes yet."""

    generation: Generation  # of N images
    parent: int | None  # id of the node that they continue
    pixels: FloatArray  # (N, H, W), or (N, H, W, 3): the preview of scale k of each

    @property
    def k(self) -> int:
        """The finest scale made."""
        return self.generation.depth - 1


class Previews:
    """Decodes the pictures of nodes. Those used longest ago are forgotten."""

    def __init__(self) -> None:
        self._decoded: OrderedDict[str, tuple[FloatArray, MaskArray | None]] = OrderedDict()

    def of(self, generator: Generator, node: Node, k: int) -> Preview:
        """Decoded, or taken from the pictures decoded before: those of shared coarse scales are the same."""
        # Tokens alone do not name it: the outside of a mask may be another picture's.
        key = picture_name(replace(node.trace, pyramid=node.trace.pyramid.prefix(k + 1)))
        decoded = self._decoded.get(key)
        if decoded is None:
            decoded = self._decoded[key] = _decoded(generator, node, k)
            if len(self._decoded) > KEPT_PREVIEWS:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(key)
        return Preview(node, k, *decoded)

    def clear(self) -> None:
        """Forget all of them."""
        self._decoded.clear()


def _decoded(generator: Generator, node: Node, k: int) -> tuple[FloatArray, MaskArray | None]:
    """The preview of scale k, and its mask where the model makes any."""
    if not generator.backend.info.structures:
        return generator.preview(node.generation, k)[0], None
    images, masks = generator.pairs(node.generation, k)
    return images[0], masks[0]
