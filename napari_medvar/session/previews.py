"""Results that a session yields while it generates images, and the cache of decoded previews."""

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

KEPT_PREVIEWS = 200  # decoded images; 256 KiB each at 256×256


@dataclass(frozen=True, eq=False, slots=True)
class Preview:
    """The image decoded from scales ``0…k`` of a node."""

    node: Node
    k: int
    pixels: FloatArray  # (H, W), or (H, W, 3), in [-1, 1]
    mask: MaskArray | None = None  # (H, W), the structure of each pixel; None of a model without masks

    @property
    def generation(self) -> Generation:
        """The generation of this image, finished or not."""
        return self.node.generation

    @property
    def newest(self) -> bool:
        """Whether this is the finest scale made so far."""
        return self.k + 1 == self.generation.depth

    @property
    def trace(self) -> Trace:
        """The trace of the image."""
        return self.node.trace


@dataclass(frozen=True, eq=False, slots=True)
class Progress:
    """Reports that a scale was made but not decoded."""

    node: Node


@dataclass(frozen=True, eq=False, slots=True)
class Candidates:
    """N continuations of one image to choose from, made up to scale k. They are not nodes yet."""

    generation: Generation  # of N images
    parent: int | None  # id of the node that they continue; None for new images
    pixels: FloatArray  # (N, H, W), or (N, H, W, 3): the preview of scale k of each

    @property
    def k(self) -> int:
        """The finest scale made."""
        return self.generation.depth - 1


class Previews:
    """Decodes the images of nodes, with a cache of the most recently used."""

    def __init__(self) -> None:
        self._decoded: OrderedDict[str, tuple[FloatArray, MaskArray | None]] = OrderedDict()

    def of(self, generator: Generator, node: Node, k: int) -> Preview:
        """The preview of scale ``k`` of ``node``, from the cache if its tokens were decoded before."""
        # Tokens alone do not identify it: pixels outside a mask may come from another image.
        key = picture_name(replace(node.trace, pyramid=node.trace.pyramid.prefix(k + 1)))
        decoded = self._decoded.get(key)
        if decoded is None:
            decoded = self._decoded[key] = _decoded(generator, node, k)
            if len(self._decoded) > KEPT_PREVIEWS:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(key)
        return Preview(node, k, *decoded)

    def clear(self) -> None:
        """Empty the cache."""
        self._decoded.clear()


def _decoded(generator: Generator, node: Node, k: int) -> tuple[FloatArray, MaskArray | None]:
    """The preview of scale k, and its mask if the model makes masks."""
    if not generator.backend.info.structures:
        return generator.preview(node.generation, k)[0], None
    images, masks = generator.pairs(node.generation, k)
    return images[0], masks[0]
