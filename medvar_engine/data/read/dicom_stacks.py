"""Divides DICOM frames into stacks by orientation and position in the plane; turned slices are put among the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from medvar_engine.data.read.dicom_geometry import parallel
from medvar_engine.data.read.dicom_header import Header
from medvar_engine.data.read.dicom_places import are_disjoint, geometry_of, is_regular, places_of
from medvar_engine.data.read.dicom_turn import turned_to
from medvar_engine.data.read.volume import MINIMUM_SLICES

_SAME_VIEW = 1.0  # mm; time points that follow the motion of a patient differ by less


def by_orientation(headers: Sequence[Header]) -> list[list[Header]]:
    """The frames of each orientation and pixel size."""

    def numbers(one: Header) -> tuple[float, ...] | None:
        return None if one.orientation is None else (*one.orientation, *(one.spacing or ()))

    return [[headers[index] for index in alike] for alike in parallel([numbers(one) for one in headers])]


def turned_alike(stacks: Iterable[list[Header]]) -> list[list[Header]]:
    """Stacks, of which those with rows or columns in other directions are joined if their slices lie between others.

    Every other slice of some series is stored upside down; these are one volume, because no position repeats.
    """
    found: list[list[Header]] = []
    for stack in stacks:
        for at, other in enumerate(found):
            turned = _turned(stack, other[0])
            if turned and _continue(other, turned):
                found[at] = other + turned
                break
        else:
            found.append(stack)
    return found


def _turned(stack: Sequence[Header], like: Header) -> list[Header]:
    """The headers of a stack, turned to the orientation of another frame; empty if that is not possible."""
    geometry = geometry_of(stack)
    if geometry is None or like.orientation is None or like.spacing is None:
        return []
    found = []
    for header, frame in zip(stack, geometry, strict=True):
        turned = turned_to(frame, header.matrix, like.orientation)
        if turned is None or not np.allclose(frame.spacing, like.spacing, rtol=1e-3):
            return []
        turn, there = turned
        found.append(replace(header, position=there.position, orientation=there.orientation, turn=turn))
    return found


def _continue(stack: Sequence[Header], other: Sequence[Header]) -> bool:
    """Whether no position is in both stacks, and their slices lie among each other or form one regular stack."""
    both = [*stack, *other]
    places = places_of(both)
    if not places or set(places[: len(stack)]) & set(places[len(stack) :]):
        return False
    return not are_disjoint((stack, other)) or is_regular(both)


def views_of(stack: list[Header]) -> list[list[Header]]:
    """Stacks that repeat positions along the normal, at other places in the plane, such as stations of a body."""
    places, geometry = places_of(stack), geometry_of(stack)
    if not geometry or len(set(places)) == len(places):
        return [stack]
    axes = np.reshape(geometry[0].orientation, (2, 3))
    corners = [tuple(float(one) for one in axes @ frame.position) for frame in geometry]
    views = parallel(corners, _SAME_VIEW)
    seen = [{places[index] for index in view} for view in views]
    # Tilted slices lie at other places in the plane, too, but at one only for each position along the normal.
    if sum(map(len, seen)) == len(set(places)) or min(map(len, seen)) < MINIMUM_SLICES:
        return [stack]
    return [[stack[index] for index in view] for view in views]
