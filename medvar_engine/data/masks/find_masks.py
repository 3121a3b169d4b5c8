"""Matches label maps to scans by the user's rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvar_engine.data.masks.label_files import LabelFile, ScanLabels, SegmentFile
from medvar_engine.data.masks.mask_rule import STRUCTURE, MaskRule
from medvar_engine.data.masks.segmentation_object import segments_of
from medvar_engine.data.read.dicom_file import looks_like_dicom
from medvar_engine.data.read.folder import files_below
from medvar_engine.data.read.scans import Refusal, Series
from medvar_engine.data.recipe.file_patterns import Pattern
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import Structures, structures_of
from medvar_engine.untrusted import plain_csv, plain_json

DATASET = "dataset.json"
_TABLE = ("scan", "labels")


@dataclass(frozen=True, slots=True)
class FoundMasks:
    """The label maps of scans by `Series.uid`, and all files with labels, which are not scans.

    ``refusals`` are scans without a label map.
    """

    of_scan: Mapping[str, ScanLabels]
    structures: Structures
    files: frozenset[Path]
    refusals: tuple[Refusal, ...]


@dataclass(slots=True)
class _Named:
    """Label files of one scan with the names of their values: value → name, or one name for a whole file."""

    files: dict[Path, Mapping[int, str] | str] = field(default_factory=dict)
    named_by: str = "nothing"


def find_masks(rule: MaskRule, series: Sequence[Series], source: Path) -> FoundMasks:
    """Match scans below ``source`` with their label maps.

    Raises `MedvarError` when no scan has a label map, when a scan has two, or when a requested structure does not
    occur.
    """
    if not source.is_dir():
        raise MedvarError(f"Label maps are looked for in a folder of scans, but {source} is one file.")
    if rule.table is not None:
        named = _by_table(rule, source)
    elif rule.labels is not None:
        named = _by_pattern(rule, rule.labels, series, source)
    else:
        named = _by_segments(source)
    claimed = frozenset(path for one in named.values() for path in one.files)
    scans = [one for one in series if not claimed.intersection(one.paths)]
    matched = {one.uid: named[key] for one in scans for key in _keys(rule, one) if key in named}
    if not matched:
        raise MedvarError(
            f"No scan below {source} has a label map ({rule.name}); looked for {rule.looked_for}. Is it another layout?"
        )
    structures = _all_structures(rule, matched.values())
    numbers = {one.name: value for value, one in enumerate(structures, 1)}
    without = [Refusal(str(one.path), _no_mask(rule, one)) for one in scans if one.uid not in matched]
    return FoundMasks(
        {uid: _numbered(one, numbers) for uid, one in matched.items()}, structures, claimed, tuple(without)
    )


def _no_mask(rule: MaskRule, one: Series) -> str:
    if one.archive is not None:
        return "label maps are not searched for in archives; unpack it first"
    return f"it has no label map ({rule.name}); looked for {rule.looked_for}"


def _keys(rule: MaskRule, one: Series) -> Iterable[object]:
    """The keys by which the label map of a scan may be found."""
    if rule.table is not None:
        return [path for own in one.paths for path in (own, *own.parents)]
    if rule.labels is None:
        return [one.uid.split()[0]] if one.is_dicom else []
    return _places(rule.scans, one.path)


def _places(patterns: Iterable[Pattern], path: Path) -> list[object]:
    """The folder and the named parts of a file, without the structure."""
    found = (pattern.find(path) for pattern in patterns)
    return [(one[0], _parts(one[1])) for one in found if one is not None]


def _parts(parts: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, text) for name, text in parts.items() if name != STRUCTURE)


def _by_pattern(rule: MaskRule, labels: Pattern, series: Sequence[Series], source: Path) -> dict[object, _Named]:
    scans = {path for one in series if _places(rule.scans, one.path) for path in one.paths}
    named: dict[object, _Named] = {}
    for path in files_below(source)[0]:
        found = labels.find(path)
        if found is None or path in scans:
            continue
        folder, parts = found
        one = named.setdefault((folder, _parts(parts)), _Named())
        if STRUCTURE in labels.names:
            one.files[path], one.named_by = parts[STRUCTURE], "its name"
            continue
        if one.files:
            raise MedvarError(f"{path} and {next(iter(one.files)).name} are both label maps of one scan; remove one.")
        one.files[path], one.named_by = _values(rule, folder)
    return named


def _values(rule: MaskRule, folder: Path) -> tuple[Mapping[int, str], str]:
    """Value → name of a label map below ``folder``, and the source of the names."""
    if rule.values:
        return rule.values, rule.name
    path = folder / DATASET
    if not path.is_file():
        raise MedvarError(
            f"{path} is missing, which names the values of label maps; or name them under structures in a .yaml file."
        )
    try:
        labels = plain_json.read(path)["labels"]
        # {"1": "spleen"} in the Decathlon and nnU-Net's first version, {"spleen": 1} in its second.
        pairs = [(key, one) if str(key).isdecimal() else (one, key) for key, one in labels.items()]
        values = {int(value): str(name) for value, name in pairs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MedvarError(f"{path}: labels are expected as value and name, such as 1 and spleen ({error}).") from error
    return {value: name for value, name in sorted(values.items()) if value > 0}, DATASET


def _by_segments(source: Path) -> dict[object, _Named]:
    named: dict[object, _Named] = {}
    for path in files_below(source)[0]:
        found = segments_of(path) if looks_like_dicom(path) else None
        if found is None:
            continue
        one = named.setdefault(found[0], _Named(named_by="its segments"))
        one.files[path] = found[1]
    return named


def _by_table(rule: MaskRule, source: Path) -> dict[object, _Named]:
    path = source / str(rule.table)
    named: dict[object, _Named] = {}
    for line, row in plain_csv.rows(path):
        cells = {name: row.get(name, "") for name in (*_TABLE, STRUCTURE)}
        if missing := [name for name in _TABLE if not cells[name]]:
            raise MedvarError(f"{path}, line {line}: {missing[0]} is empty; the columns are scan, labels, structure.")
        if any(Path(cells[name]).is_absolute() or ".." in Path(cells[name]).parts for name in _TABLE):
            raise MedvarError(f"{path}, line {line}: paths are relative to {source}, and inside it.")
        scan, labels = source / cells["scan"], source / cells["labels"]
        if not labels.is_file():
            raise MedvarError(f"{path}, line {line}: there is no file {labels}.")
        if not cells[STRUCTURE] and not rule.values:
            raise MedvarError(
                f"{path}, line {line}: name the structure, or all values under structures in {rule.name}."
            )
        one = named.setdefault(scan, _Named(named_by=rule.name))
        if labels in one.files or (one.files and not cells[STRUCTURE]):
            raise MedvarError(f"{path}, line {line}: {cells['scan']} has a label map already.")
        one.files[labels] = cells[STRUCTURE] or rule.values
    return named


def _all_structures(rule: MaskRule, found: Iterable[_Named]) -> Structures:
    """All structures, or the requested ones; sorted by name for separate files, otherwise by value."""
    names: dict[str, None] = {}
    single: set[str] = set()
    for one in found:
        for said in one.files.values():
            if isinstance(said, str):
                single.add(said)
            else:
                names.update(dict.fromkeys(said.values()))
    names.update(dict.fromkeys(sorted(single)))
    if absent := [name for name in rule.take if name not in names]:
        raise MedvarError(f"{rule.name}: the structure {absent[0]!r} is none of {', '.join(list(names)[:20])}.")
    return structures_of(rule.take or names, rule.colours)


def _numbered(one: _Named, numbers: Mapping[str, int]) -> ScanLabels:
    """The label files with values mapped to numbers of structures; 0 for structures that are not requested."""

    def numbered(said: Mapping[int, str]) -> dict[int, int]:
        return {value: numbers.get(name, 0) for value, name in said.items()}

    kind: Callable[..., Any]
    files: list[LabelFile | SegmentFile] = []
    for path, said in one.files.items():
        if isinstance(said, str):
            if said in numbers:
                files.append(LabelFile(path, {}, numbers[said]))
            continue
        kind = SegmentFile if one.named_by == "its segments" else LabelFile
        files.append(kind(path, numbered(said)))
    return ScanLabels(tuple(files), one.named_by)
