"""Groups DICOM frames to scans and volumes, by their positions and by attributes that distinguish repeated positions.

A series is divided only if several images have the same position, or if its positions form no regular stack as a whole
but do so in parts. AcquisitionNumber, for example, differs between the packages of an interleaved scan and between the
rotations of a sequential CT (PS3.3 C.7.10.1), which are one volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvar_engine.data.read.dicom_header import Header, Value
from medvar_engine.data.read.dicom_places import are_disjoint, geometry_of, is_regular, places_of
from medvar_engine.data.read.dicom_stacks import by_orientation, turned_alike, views_of

# Attributes that distinguish images at one position, in the order in which they are tried. Attributes of the content
# come first, because a repeated b = 0 would count as a further time point otherwise; counters come last.
_SHOWN = ("b-value and direction", "echo", "image type", "frame of reference")
_COUNTED = ("temporal position", "trigger time", "acquisition number", "acquisition time", "instance number")
# Differences in these attributes make separate scans; differences in others make volumes of one scan.
_SCANS = ("echo", "image type", "frame of reference")
_MOST_ACQUISITIONS = 4  # more acquisitions of the same positions are a time series

_VIEW = "position in the plane"

_LOCALIZER_SLICES = 10  # of one plane
_LOCALIZER_GAP = 4.0  # mm


@dataclass(frozen=True, slots=True)
class Scan:
    """Headers of one scan: a volume, or several at the same places, distinguished by ``distinguished_by``."""

    volumes: tuple[tuple[Header, ...], ...]
    distinguished_by: tuple[str, ...] = ()

    @property
    def first(self) -> Header:
        """The first frame of the first volume."""
        return self.volumes[0][0]


@dataclass(frozen=True, slots=True)
class _Step:
    """The value of the attribute ``name`` that distinguishes a volume; its rank at each position if ``ranked``."""

    name: str
    value: Value | int
    ranked: bool = False

    @property
    def label(self) -> str:
        """The attribute, for a remark."""
        return f"{self.name} (in order at each position)" if self.ranked else self.name


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One volume, and what distinguishes it from others."""

    headers: tuple[Header, ...]
    trail: tuple[_Step, ...] = ()


def group(headers: Iterable[Header]) -> list[Scan]:
    """Group headers to scans, each of one patient, series, matrix, orientation and pixel size."""
    scans: list[Scan] = []
    for same_series in grouped(headers, lambda one: (one.patient, one.modality, one.series_uid)):
        scans += [Scan(((header,),)) for header in same_series if header.cine]
        for alike in grouped((one for one in same_series if not one.cine), lambda one: one.matrix):
            for stack in turned_alike(by_orientation(alike)):
                views = views_of(stack)
                apart = (_VIEW,) if len(views) > 1 else ()
                scans += [
                    replace(one, distinguished_by=apart + one.distinguished_by) for v in views for one in _scans(v)
                ]
    return scans


def name_scans(scans: Sequence[Scan]) -> dict[str, Scan]:
    """Name → scan: the series' UID, with a number when several scans share it."""
    shared: dict[str, list[Scan]] = {}
    for scan in sorted(scans, key=lambda one: (one.first.path, one.first.index)):
        shared.setdefault(scan.first.series_uid, []).append(scan)
    return {
        f"{uid}#{number}" if len(same) > 1 else uid: scan
        for uid, same in shared.items()
        for number, scan in enumerate(same, 1)
    }


def localizers(headers: Iterable[Header]) -> list[Header]:
    """Headers of localizers without an ImageType of localizers: few thick slices in each of three planes."""
    found: list[Header] = []
    for same_series in grouped(headers, lambda one: (one.patient, one.modality, one.series_uid)):
        stacks = [stack for stack in by_orientation(same_series) if geometry_of(stack) is not None]
        planes = {_plane(stack[0]) for stack in stacks}
        few = all(places_of(stack)[-1] < _LOCALIZER_SLICES for stack in stacks if places_of(stack))
        if len(planes) == 3 and few and all(_is_sparse(stack) for stack in stacks):
            found += same_series
    return found


def _scans(stack: list[Header]) -> Iterator[Scan]:
    leaves = _leaves(stack, (*_SHOWN, *_COUNTED))
    acquisitions = {step.value for leaf in leaves for step in leaf.trail if step.name == "acquisition number"}
    apart = (*_SCANS, "acquisition number") if len(acquisitions) <= _MOST_ACQUISITIONS else _SCANS
    by_scan: dict[object, list[_Leaf]] = {}
    for leaf in leaves:
        by_scan.setdefault(tuple(step for step in leaf.trail if step.name in apart), []).append(leaf)
    names = dict.fromkeys(step.label for leaf in leaves for step in leaf.trail)
    for members in by_scan.values():
        volumes = [leaf.headers for leaf in members]
        if _SHOWN[0] in names:
            volumes.sort(key=_acquired)
        # A volume that lacks slices, as the last one of an interrupted scan does, is refused alone.
        whole = [one for one in volumes if is_regular(one)] if len(volumes) > 1 else volumes
        yield Scan(tuple(whole or volumes), tuple(names))
        if whole:
            yield from (Scan((one,), tuple(names)) for one in volumes if not any(one is other for other in whole))


def _acquired(volume: Sequence[Header]) -> tuple[object, ...]:
    """A key that sorts volumes of diffusion by b-value, and those of one b-value as they were acquired.

    Their directions have no order, and one that is repeated has its turn more than once.
    """
    return _order(volume[0].b_value), min(_order(one.values["instance number"]) for one in volume)


def _leaves(headers: list[Header], keys: Sequence[str]) -> list[_Leaf]:
    """The volumes at the positions of ``headers``. Indistinguishable images stay together, and are refused later."""
    places = places_of(headers)
    if not places:
        return [_leaf(headers)]
    if len(set(places)) == len(places):
        return _stacks(headers)
    most: list[_Leaf] = []
    for at, key in enumerate(keys):
        parts, complete, ranked = _parts(headers, places, key)
        if len(parts) < 2:
            continue
        found: list[_Leaf] = []
        for value, part in parts:
            found += [
                _Leaf(leaf.headers, (_Step(key, value, ranked), *leaf.trail)) for leaf in _leaves(part, keys[at + 1 :])
            ]
        if complete or all(is_regular(leaf.headers) for leaf in found):
            return found
        if not most and not ranked and _lack_slices(found):
            most = found
    return most or [_leaf(headers)]


def _lack_slices(leaves: Sequence[_Leaf]) -> bool:
    """Whether no position repeats within a volume, and most volumes are complete; the others lack slices."""
    places = [places_of(leaf.headers) for leaf in leaves]
    whole = sum(is_regular(leaf.headers) for leaf in leaves)
    return 2 * whole > len(leaves) and all(len(set(one)) == len(one) for one in places)


def _parts(
    headers: list[Header], places: Sequence[int], key: str
) -> tuple[list[tuple[Value | int, list[Header]]], bool, bool]:
    """Headers by the values of ``key``, in order, whether each place has the same values, and whether they are ranks.

    What a scanner counts may differ from place to place, as times after a heartbeat do: it is ranked at each place.
    """
    values: dict[int, set[Value]] = {}
    for header, place in zip(headers, places, strict=True):
        values.setdefault(place, set()).add(header.values[key])
    if max(len(one) for one in values.values()) < 2:
        return [], False, False
    complete = len({frozenset(one) for one in values.values()}) == 1
    named: list[tuple[Value | int, Header]]
    even = len({len(one) for one in values.values()}) == 1
    # Where images are missing, all places have some of the values that one of them has.
    common = len(set().union(*values.values())) == max(map(len, values.values()))
    ranked = not (common or key in _SHOWN or (key == "acquisition number" and not even))
    if not ranked:
        named = [(header.values[key], header) for header in headers]
    else:
        ranks = {
            place: {value: rank for rank, value in enumerate(sorted(one, key=_order))} for place, one in values.items()
        }
        named = [(ranks[place][header.values[key]], header) for header, place in zip(headers, places, strict=True)]
    parts: dict[Value | int, list[Header]] = {}
    for value, header in sorted(named, key=lambda one: _order(one[0])):
        parts.setdefault(value, []).append(header)
    if not complete and key in _COUNTED and even:
        # Ranks at each position give complete volumes, unless they mix different contents.
        complete = all(
            len({tuple(one.values[name] for name in _SHOWN[:3]) for one in part}) == 1 for part in parts.values()
        )
    return list(parts.items()), complete, ranked


def _stacks(headers: list[Header]) -> list[_Leaf]:
    """One volume; or several if the positions form regular stacks only by type, frame of reference or acquisition."""
    if not is_regular(headers):
        for key in ("image type", "frame of reference", "echo", "acquisition number"):
            parts = grouped(headers, lambda one, name=key: one.values[name])  # type: ignore[misc]
            # Packages of one acquisition interleave; they are not separate scans, even if slices are missing.
            apart = key != "acquisition number" or are_disjoint(parts)
            if len(parts) > 1 and apart and all(map(is_regular, parts)):
                return [_Leaf(_leaf(part).headers, (_Step(key, part[0].values[key]),)) for part in parts]
    return [_leaf(headers)]


def _leaf(headers: Sequence[Header]) -> _Leaf:
    return _Leaf(tuple(sorted(headers, key=lambda one: (one.path, one.index))))


def grouped(headers: Iterable[Header], key: Callable[[Header], object]) -> list[list[Header]]:
    """The headers of each key, in the order in which the keys come first."""
    groups: dict[object, list[Header]] = {}
    for header in headers:
        groups.setdefault(key(header), []).append(header)
    return list(groups.values())


def _plane(header: Header) -> int:
    """The index of the patient's axis that is closest to the normal."""
    rows, columns = np.reshape(header.orientation or (1, 0, 0, 0, 1, 0), (2, 3))
    return int(np.abs(np.cross(rows, columns)).argmax())


def _is_sparse(stack: Sequence[Header]) -> bool:
    """Whether slices are thick or far apart, or there is only one."""
    depths = np.unique(np.round([one.depth for one in geometry_of(stack) or ()], 2))
    gap = float(np.diff(depths).min()) if len(depths) > 1 else np.inf
    return gap >= _LOCALIZER_GAP or (stack[0].thickness or 0.0) >= _LOCALIZER_GAP


def _order(value: object) -> tuple[object, ...]:
    """A sort key for numbers, tuples and missing values, which come first."""
    if value is None:
        return (0,)
    if isinstance(value, tuple):
        return (3, *(_order(one) for one in value))
    if isinstance(value, int | float):
        return (1, float(value))
    try:
        return (1, float(str(value)))
    except ValueError:
        return (2, str(value))
