"""`MaskRule`: the paths of label maps and the meaning of their values, as a known layout or a YAML file.

A YAML file contains::

    scans: "{case}/ct.nii.gz"                # a pattern, or a list of patterns
    labels: "{case}/organs.nii.gz"           # {structure} stands for one file of each structure
    structures: {1: spleen, 2: kidney_left}  # value: name; or a list of the names that are taken
    colours: {spleen: "#aa3333"}

Instead of ``scans`` and ``labels`` it may name a ``table``, a CSV file with the columns ``scan`` and ``labels``, and
``structure`` if each structure has a separate file; paths are relative to the folder of scans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvar_engine.data.recipe.file_patterns import Pattern
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MOST, structures_of
from medvar_engine.untrusted import plain_yaml

STRUCTURE = "structure"
"""The named part of a pattern for the structure, if each structure has a separate file."""

_FIELDS = ("scans", "labels", "table", "structures", "colours")


@dataclass(frozen=True, slots=True)
class MaskRule:
    """How label maps are matched to scans.

    A label map belongs to the scan with the same named parts in the same folder. ``values`` is value → name; empty if
    file names, a ``dataset.json`` or segments name the structures. Only the structures ``take`` are used, or all if it
    is empty. ``table`` is a CSV file that lists the files. With neither, DICOM SEG files refer to their series
    themselves.
    """

    name: str
    scans: tuple[Pattern, ...] = ()
    labels: Pattern | None = None
    table: str | None = None
    values: Mapping[int, str] = field(default_factory=dict)
    take: tuple[str, ...] = ()
    colours: Mapping[str, str] = field(default_factory=dict)

    def case(self, path: Path) -> str | None:
        """The named parts of a scan's path, which identify the case; None if the path does not match."""
        parts = next((found for one in self.scans if (found := one.parts(path)) is not None), None)
        return "-".join(parts.values()) if parts else None

    @property
    def looked_for(self) -> str:
        """The files that are searched for, for messages."""
        if self.labels is not None:
            return self.labels.text
        return f"the files that {self.table} names" if self.table else "DICOM SEG"


LAYOUTS: dict[str, MaskRule] = {
    "totalsegmentator": MaskRule(
        "totalsegmentator",
        (Pattern("{case}/ct.nii.gz"), Pattern("{case}/mri.nii.gz")),
        Pattern("{case}/segmentations/{structure}.nii.gz"),
    ),
    "msd": MaskRule("msd", (Pattern("imagesTr/{case}.nii.gz"),), Pattern("labelsTr/{case}.nii.gz")),
    "nnunet": MaskRule(
        "nnunet",
        tuple(Pattern(f"imagesTr/{{case}}_{channel:04d}.nii.gz") for channel in range(8)),
        Pattern("labelsTr/{case}.nii.gz"),
    ),
    "dicom-seg": MaskRule("dicom-seg"),
}


def mask_rule(name_or_path: str) -> MaskRule:
    """A known layout by name, or a rule from a YAML file. Raises `MedvarError` for an invalid one."""
    if name_or_path in LAYOUTS:
        return LAYOUTS[name_or_path]
    if not name_or_path.lower().endswith((".yaml", ".yml")):
        raise MedvarError(
            f"There is no layout of label maps {name_or_path!r}; layouts are {', '.join(LAYOUTS)}, or name a file of "
            "your own that ends in .yaml."
        )
    path = Path(name_or_path)
    try:
        values = plain_yaml.loads(plain_yaml.read_text(path))
    except (OSError, ValueError) as error:
        raise MedvarError(f"{path} cannot be read ({error}).") from error
    try:
        return _rule(path.name, values)
    except MedvarError as error:
        raise MedvarError(f"{path}: {error}") from error


def _rule(name: str, values: Any) -> MaskRule:
    if not isinstance(values, dict) or (unknown := sorted(str(one) for one in values if one not in _FIELDS)):
        said = f"unknown field {unknown[0]}" if isinstance(values, dict) else "it holds no fields"
        raise MedvarError(f"{said}; the fields are {', '.join(_FIELDS)}.")
    scans = values.get("scans", [])
    scans = [scans] if isinstance(scans, str) else scans
    labels, table = values.get("labels"), values.get("table")
    if table is None and not (labels and scans):
        raise MedvarError("it needs scans and labels, patterns such as '{case}/ct.nii.gz', or a table, a CSV file.")
    if not all(isinstance(one, str) for one in (*scans, *(each for each in (labels, table) if each is not None))):
        raise MedvarError("scans, labels and table are texts.")
    patterns, pattern = tuple(map(Pattern, scans)), Pattern(labels) if labels else None
    for one in patterns if pattern else ():
        if not one.names or one.names != (pattern.names if pattern else frozenset()) - {STRUCTURE}:
            raise MedvarError(f"the pattern {one.text!r} must have the named parts of labels, {labels!r}.")
    numbers, take = _structures(values.get("structures", {}))
    colours = values.get("colours", {})
    if not isinstance(colours, dict) or not all(isinstance(one, str) for pair in colours.items() for one in pair):
        raise MedvarError('colours gives names their colours, such as {spleen: "#aa3333"}.')
    rule = MaskRule(name, patterns, pattern, table, numbers, take, colours)
    structures_of([*dict.fromkeys(numbers.values()), *take], colours)
    return rule


def _structures(values: Any) -> tuple[dict[int, str], tuple[str, ...]]:
    """Value → name, or else the names of requested structures."""
    if isinstance(values, list) and all(isinstance(one, str) for one in values):
        return {}, tuple(values)
    if isinstance(values, dict) and all(
        type(key) is int and 0 < key < 2**16 and isinstance(one, str) for key, one in values.items()
    ):
        return dict(sorted(values.items())), ()
    raise MedvarError(
        f"structures is value: name, such as {{1: spleen, 2: liver}}, of at most {MOST}; or a list of names to take."
    )
