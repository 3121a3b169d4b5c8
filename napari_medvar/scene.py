"""`Scene`: what a picture's pixels stand for and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

from medvar_engine.bundle import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.display import Display
from napari_medvar.placement import Placement


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """All that a layer needs beside the pixels."""

    display: Display
    placement: Placement
    bundle: str  # the folder of the model that made the picture: writers look up units there

    @classmethod
    def of(cls, bundle: Bundle, condition: Condition) -> Scene:
        """A synthetic picture, as the model's training slices were measured."""
        display = bundle.display(condition)
        return cls(display, Placement.flat(bundle.image_size, display.spacing_mm), str(bundle.path))
