"""`stack_requests` and `draw_stack`: the slices of a stack, one after the other; `placed`: where each slice lies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.request import MOST_SLICES, Request, Sampling, StackPlace
from medvar_engine.write.dicom import uid
from medvar_engine.write.geometry import corner, directions, through
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.place import Place


@dataclass(frozen=True, slots=True)
class Stack:
    """A number of slices, ``spacing_mm`` apart, from the position of the condition to position ``to``."""

    slices: int
    spacing_mm: float
    to: float | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.slices <= MOST_SLICES:
            raise MedvarError(f"A stack has 2 to {MOST_SLICES} slices, but {self.slices} are asked for.")
        if not 0.01 <= self.spacing_mm <= 100:
            raise MedvarError(f"The spacing of slices must be 0.01 to 100 mm, but is {self.spacing_mm:g}.")
        if self.to is not None and not 0 <= self.to <= 1:
            raise MedvarError(
                f"The last slice of the stack would be at position {self.to:g}, outside the range from 0 to 1. "
                "Use fewer slices, or begin at another position."
            )


def stack_requests(bundle: Bundle, condition: Condition, seed: int, sampling: Sampling, stack: Stack) -> list[Request]:
    """One request for each slice, beginning at the feet, the back or the left, to be drawn with `draw_stack`.

    Raises `MedvarError` when the bundle has no pixel size for ``condition`` or makes slices of several planes for it,
    when it is not conditioned on the position, and for positions outside 0 to 1.
    """
    spacing = bundle.display(condition).spacing_mm
    if spacing is None:
        raise MedvarError(
            f"{bundle.name} has no pixel size for {condition}, so slices cannot be placed at a distance in mm. Give "
            "modality, region and plane."
        )
    positions: list[float | None] = [condition.position] * stack.slices
    if stack.to is not None:
        if condition.position is None:
            raise MedvarError("The last position of a stack needs the first one. Give the position, too.")
        if stack.to < condition.position:
            raise MedvarError(
                f"The slices of a stack are in the order of their positions, but its last position, {stack.to:g}, is "
                f"below the first, {condition.position:g}. Exchange the two."
            )
        positions = [float(value) for value in np.linspace(condition.position, stack.to, stack.slices)]
    conditions = [replace(condition, position=position) for position in positions]
    bundle.labels.encode(conditions[0])
    if len(planes := {one.condition.plane for one in bundle.fitting(condition)}) > 1:
        raise MedvarError(
            f"Slices of a stack lie in one plane, but for {condition}, {bundle.name} knows "
            f"{', '.join(sorted(map(str, planes)))}. Give the plane, too."
        )
    step = stack.spacing_mm / (spacing * bundle.image_size)
    return [Request(one, seed, sampling, stack=StackPlace(i, step)) for i, one in enumerate(conditions)]


def draw_stack(
    generator: Generator, requests: Sequence[Request], progress: Callable[[int], None] | None = None
) -> Iterator[Generation]:
    """The finished slices of `stack_requests`, each as a generation of one image that is near the slice before.

    ``progress`` is called after each scale with the number of images, which is 1.
    """
    before = None
    for request in requests:
        before = generator.finish(generator.start([near(request, before)]), progress)
        yield before


def near(request: Request, before: Generation | None) -> Request:
    """The request of a slice, to be drawn near the finished slice ``before``; None for the first slice."""
    if request.stack is None or before is None:
        return request
    return replace(request, stack=replace(request.stack, before=tuple(before.pyramid.sequence[0].tolist())))


def placed(image: OutputImage, stack: Stack, first: Request) -> OutputImage:
    """A slice of a stack with its position: the stack is centred on the origin, with one frame of reference.

    The frame follows from the request of the ``first`` slice, because other slices may be drawn with other seeds.
    """
    own = image.trace.request.stack
    if own is None or image.spacing_mm is None:
        return image
    columns, rows = directions(image.plane)
    normal = through(image.plane)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = columns * image.spacing_mm, rows * image.spacing_mm
    matrix[:3, 2] = normal * stack.spacing_mm
    start = corner(image.plane, image.pixels.shape, image.spacing_mm)
    matrix[:3, 3] = start + normal * stack.spacing_mm * (own.slice - (stack.slices - 1) / 2)
    frame = uid("stack", image.trace.bundle_id, json.dumps(first.to_dict()), str(stack))
    return replace(image, place=Place(matrix + 0.0, frame))
