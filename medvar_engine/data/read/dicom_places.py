"""The positions of DICOM frames along their normal, and whether they form a regular stack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from highdicom.spatial import get_volume_positions

from medvar_engine.data.read.dicom_geometry import FrameGeometry
from medvar_engine.data.read.dicom_header import Header
from medvar_engine.data.read.volume import MINIMUM_SLICES

_SAME_PLACE = 0.02  # mm


def geometry_of(headers: Sequence[Header]) -> list[FrameGeometry] | None:
    """The geometry of all frames; None if it is missing or impossible for one of them."""
    try:
        return [FrameGeometry(one.position or (), one.orientation or (), one.spacing or (1.0, 1.0)) for one in headers]
    except ValueError:
        return None


def places_of(headers: Sequence[Header]) -> list[int]:
    """The index of each header's position along the normal, from 0; empty if a position is missing."""
    geometry = geometry_of(headers)
    if geometry is None:
        return []
    normal = geometry[0].normal
    depths = np.asarray([float(np.dot(normal, one.position)) for one in geometry])
    order = np.argsort(depths, kind="stable")
    numbers = np.concatenate([[0], np.cumsum(np.diff(depths[order]) > _SAME_PLACE)])
    places = np.empty(len(depths), dtype=int)
    places[order] = numbers
    return [int(place) for place in places]


def is_regular(headers: Sequence[Header]) -> bool:
    """Whether frames form a regular stack with enough slices for a scan."""
    geometry = geometry_of(headers)
    if geometry is None or len(geometry) < MINIMUM_SLICES:
        return False
    step, _ = get_volume_positions([one.position for one in geometry], geometry[0].orientation)
    return step is not None


def are_disjoint(parts: Sequence[Sequence[Header]]) -> bool:
    """Whether parts do not overlap along the normal."""
    extents = []
    for part in parts:
        depths = [one.depth for one in geometry_of(part) or ()]
        if not depths:
            return False
        extents.append((min(depths), max(depths)))
    extents.sort()
    return all(one[1] < another[0] for one, another in pairwise(extents))
