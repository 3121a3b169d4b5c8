"""`stack_requests`: the slices of one body, and `placed`: where each lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.request import Request, Sampling, StackPlace
from medvar_engine.write.dicom import uid
from medvar_engine.write.geometry import corner, directions, through
from medvar_engine.write.picture import Picture
from medvar_engine.write.place import Place


@dataclass(frozen=True, slots=True)
class Stack:
    """So many slices, ``spacing_mm`` apart; the last at position ``to``, where that of the first is given."""

    slices: int
    spacing_mm: float
    to: float | None = None

    def __post_init__(self) -> None:
        if self.slices < 2:
            raise MedvarError(f"A stack has 2 slices or more, but got {self.slices}.")
        if not 0.01 <= self.spacing_mm <= 100:
            raise MedvarError(f"Slices of a stack are 0.01 to 100 mm apart, but got {self.spacing_mm:g}.")
        if self.to is not None and not 0 <= self.to <= 1:
            raise MedvarError(
                f"The stack leaves the positions that a model knows, 0 to 1: its last slice is at {self.to:g}. Make it "
                "shorter, or begin it elsewhere."
            )


def stack_requests(bundle: Bundle, condition: Condition, seed: int, sampling: Sampling, stack: Stack) -> list[Request]:
    """One request for each slice, from the feet, the back or the left on.

    Raises `MedvarError` when the bundle does not know how large the pixels of ``condition`` are, and for positions
    that it is not conditioned on, or that leave 0 to 1.
    """
    spacing = bundle.display(condition).spacing_mm
    if spacing is None:
        raise MedvarError(
            f"{bundle.name} does not know how large a pixel of {condition} is, so that slices cannot be put a distance "
            "apart. Name modality, region and plane."
        )
    positions: list[float | None] = [condition.position] * stack.slices
    if stack.to is not None:
        if condition.position is None:
            raise MedvarError("The last position of a stack needs the first: name --position, too.")
        positions = [float(value) for value in np.linspace(condition.position, stack.to, stack.slices)]
    conditions = [replace(condition, position=position) for position in positions]
    bundle.labels.encode(conditions[0])
    step = stack.spacing_mm / (spacing * bundle.image_size)
    return [Request(one, seed, sampling, stack=StackPlace(i, step)) for i, one in enumerate(conditions)]


def placed(picture: Picture, stack: Stack) -> Picture:
    """A slice of a stack at its place: the middle of the stack is at the origin, and all share a frame of reference."""
    own = picture.trace.request.stack
    if own is None or picture.spacing_mm is None:
        return picture
    columns, rows = directions(picture.plane)
    normal = through(picture.plane)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = columns * picture.spacing_mm, rows * picture.spacing_mm
    matrix[:3, 2] = normal * stack.spacing_mm
    start = corner(picture.plane, picture.pixels.shape, picture.spacing_mm)
    matrix[:3, 3] = start + normal * stack.spacing_mm * (own.slice - (stack.slices - 1) / 2)
    frame = uid("stack", picture.trace.bundle_id, str(picture.trace.request.seed), str(stack))
    return replace(picture, place=Place(matrix + 0.0, frame))
