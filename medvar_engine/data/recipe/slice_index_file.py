"""Reads an ``index.csv`` of single slices (2-D images), with one row per image for its content and split."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.data.harmonise.slicing import SINGLE_PLANES
from medvar_engine.data.read.refusal import Refusal
from medvar_engine.data.recipe.index_file import INDEX, normal_label, normal_modality, one_contrast
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_csv
from medvar_engine.untrusted.plain_csv import Cells
from medvar_engine.value_range import ValueRange

COLUMNS = (
    "path", "patient", "modality", "region", "plane", "contrast", "spacing_mm", "low", "high", "unit", "split", "set",
    "source", "licence",
)  # fmt: skip
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".npy")

_FILLED = ("path", "patient", "modality", "region", "plane")
_MOST_REFUSALS = 10_000
_SPLITS = ("train", "test")
_SMALLEST_MM, _LARGEST_MM = 0.01, 100.0  # limits of the pixel size


@dataclass(frozen=True, slots=True)
class SliceFile:
    """One file with one slice, and its description in the index.

    ``values`` are the values of black and white, None if unknown; ``split`` is train, test or None.
    """

    path: Path
    patient: str
    modality: str
    region: str
    plane: str
    contrast: str | None
    spacing_mm: float | None
    values: ValueRange | None
    split: str | None
    dataset: str | None
    source: str
    licence: str


def is_slice_index(folder: Path) -> bool:
    """Whether the ``index.csv`` of a folder is one of single slices: it lists 2-D images, or has plane and split.

    Raises `MedvarError` when it cannot be read.
    """
    path = folder / INDEX
    if not path.is_file():
        return False
    names = plain_csv.columns(path)
    return {"plane", "split"}.issubset(names) or any(
        cells.get("path", "").lower().endswith(IMAGE_SUFFIXES) for _, cells in plain_csv.rows(path)
    )


def read_slice_index(folder: Path) -> tuple[list[SliceFile], list[Refusal]]:
    """The slices that ``index.csv`` lists, in its order, and the unusable rows, each with the reason.

    Raises `MedvarError` when the index cannot be read or lacks a column.
    """
    path = folder / INDEX
    names = plain_csv.columns(path)
    if missing := [name for name in COLUMNS if name not in names]:
        raise MedvarError(
            f"{path}: columns {', '.join(missing)} are missing. An index of single slices has the columns "
            f"{', '.join(COLUMNS)}; where nothing is known, a cell is empty."
        )
    sides = _sides(cells for _, cells in plain_csv.rows(path))
    root = folder.resolve()
    found: dict[Path, SliceFile] = {}
    refusals: list[Refusal] = []
    for line, cells in plain_csv.rows(path):
        named = path
        try:
            named = _inside(folder, root, cells["path"], line)
            if named in found:
                raise MedvarError(f"{INDEX} names it again in line {line}; the first row is used")
            if len(sides.get(cells["patient"], ())) > 1:
                raise MedvarError(f"patient {cells['patient']!r} is on both sides of the split in {INDEX}")
            found[named] = _slice_file(named, cells)
        except MedvarError as error:
            refusals.append(Refusal(str(named), str(error)))
            if len(refusals) > _MOST_REFUSALS:
                raise MedvarError(f"{path}: more than {_MOST_REFUSALS} rows cannot be used ({error}).") from error
    return list(found.values()), refusals


def _sides(rows: Iterator[Cells]) -> dict[str, set[str]]:
    """Patient → the sides of the split in the index."""
    sides: dict[str, set[str]] = {}
    for cells in rows:
        if cells["split"]:
            sides.setdefault(cells["patient"], set()).add(cells["split"].lower())
    return sides


def _inside(folder: Path, root: Path, name: str, line: int) -> Path:
    """The file of a row. Raises `MedvarError` if it is not in the folder."""
    if not name:
        raise MedvarError(f"line {line}: path is empty")
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts:
        raise MedvarError(f"line {line}: the path {name!r} leads out of the folder")
    path = folder / os.path.normpath(name)
    try:
        if not path.resolve().is_relative_to(root):
            raise MedvarError(f"line {line}: the path {name!r} leads out of the folder, by a link")
    except (OSError, RuntimeError, ValueError) as error:  # e.g. a loop of links, or a NUL character
        raise MedvarError(f"line {line}: the path {name!r} cannot be followed ({error})") from error
    return path


def _slice_file(path: Path, cells: Cells) -> SliceFile:
    if "" in cells:
        raise MedvarError(f"its row in {INDEX} has more cells than there are columns; put texts with commas in quotes")
    if empty := [name for name in _FILLED if not cells[name]]:
        raise MedvarError(f"{empty[0]} is empty in {INDEX}")
    modality, plane, split = normal_modality(cells["modality"]), normal_label(cells["plane"]), cells["split"].lower()
    if plane not in SINGLE_PLANES:
        raise MedvarError(f"unknown plane {cells['plane']!r}; the planes are {', '.join(SINGLE_PLANES)}")
    if split and split not in _SPLITS:
        raise MedvarError(f"unknown split {cells['split']!r}; it is train, test or empty")
    if not (region := normal_label(cells["region"])):
        raise MedvarError(f"the region {cells['region']!r} has no letter or digit")
    if not path.is_file():
        raise MedvarError(f"{INDEX} names it, but there is no such file")
    spacing = _number(cells, "spacing_mm")
    if spacing is not None and not _SMALLEST_MM <= spacing <= _LARGEST_MM:
        raise MedvarError(f"spacing_mm is {spacing:g}; a number from {_SMALLEST_MM:g} to {_LARGEST_MM:g} is expected")
    return SliceFile(
        path=path,
        patient=cells["patient"],
        modality=modality,
        region=region,
        plane=plane,
        contrast=one_contrast(cells["contrast"]) or None,
        spacing_mm=spacing,
        values=_values(cells, modality),
        split=split or None,
        dataset=normal_label(cells["set"]) or None,
        source=cells["source"],
        licence=cells["licence"],
    )


def _values(cells: Cells, modality: str) -> ValueRange | None:
    low, high = _number(cells, "low"), _number(cells, "high")
    unit = {"hu": "HU", "arbitrary": "arbitrary", "": "arbitrary"}.get(cells["unit"].lower())
    if unit is None:
        raise MedvarError(f"unknown unit {cells['unit']!r}; it is HU, arbitrary or empty")
    if unit == "HU" and modality != "CT":
        raise MedvarError(f"unit is HU, but modality is {modality}; only CT is in HU")
    if low is None and high is None and unit == "arbitrary":
        return None
    if low is None or high is None or not low < high:
        raise MedvarError(
            f"low is {cells['low'] or 'empty'} and high is {cells['high'] or 'empty'}: the values of black and "
            "white must be two numbers, low below high. Leave both empty, and unit not HU, if they are unknown"
        )
    return ValueRange(low, high, unit)


def _number(cells: Cells, name: str) -> float | None:
    text = cells[name]
    try:
        number = float(text) if text else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise MedvarError(f"{name} is {text!r}, which is not a number")
    return number
