"""Results that a session yields while it generates images, and the caches of previews and latents."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from medvar_engine.generate.composite import image_key
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray
from medvar_engine.types import FloatArray
from napari_medvar.session.trace_tree import Node

KEPT_PREVIEWS = 200  # decoded images; 256 KiB each at 256×256
KEPT_LATENTS = 16  # images; half a MiB each in the demo model


@dataclass(frozen=True, eq=False, slots=True)
class Preview:
    """The image decoded from scales ``0…k`` of a node."""

    node: Node
    k: int
    pixels: FloatArray  # (H, W), or (H, W, 3), in [-1, 1]
    mask: MaskArray | None = None  # (H, W), the structure of each pixel; None of a model without masks

    @property
    def newest(self) -> bool:
        """Whether this is the finest scale made so far."""
        return self.k + 1 == self.node.depth

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
    """Decodes the images of nodes, with caches of the most recently used previews and latents."""

    def __init__(self) -> None:
        self._decoded: OrderedDict[str, tuple[FloatArray, MaskArray | None]] = OrderedDict()
        self._generations: OrderedDict[int, tuple[Trace, Generation]] = OrderedDict()  # by the id of the trace

    def keep(self, trace: Trace, generation: Generation) -> None:
        """Latents that were computed already, of the one image that ``trace`` made."""
        self._generations[id(trace)] = trace, generation
        if len(self._generations) > KEPT_LATENTS:
            self._generations.popitem(last=False)

    def generation(self, generator: Generator, trace: Trace) -> Generation:
        """The image of a trace with its latents: those that are kept, or else computed from its tokens."""
        if id(trace) not in self._generations:
            self.keep(trace, generator.restore([trace]))
        self._generations.move_to_end(id(trace))
        return self._generations[id(trace)][1]

    def of(self, generator: Generator, node: Node, k: int) -> Preview:
        """The preview of scale ``k`` of ``node``, from the cache if its tokens were decoded before."""
        # Tokens alone do not identify it: pixels outside a mask may come from another image.
        key = image_key(replace(node.trace, pyramid=node.trace.pyramid.prefix(k + 1)))
        decoded = self._decoded.get(key)
        if decoded is None:
            decoded = self._decoded[key] = _decoded(generator, self.generation(generator, node.trace), k)
            if len(self._decoded) > KEPT_PREVIEWS:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(key)
        return Preview(node, k, *decoded)

    def clear(self) -> None:
        """Empty the cache."""
        self._decoded.clear()
        self._generations.clear()


def _decoded(generator: Generator, generation: Generation, k: int) -> tuple[FloatArray, MaskArray | None]:
    """The preview of scale k of one image, and its mask if the model makes masks."""
    if not generator.backend.info.structures:
        return generator.preview(generation, k)[0], None
    images, masks = generator.pairs(generation, k)
    return images[0], masks[0]
