"""Splits patients, never slices, into train and test, so that every combination of modality and region is tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medvar_engine.conditions import listed
from medvar_engine.data.identity.same_patient import SamePatient
from medvar_engine.errors import MedvarError

STRATA = ("modality", "region", "dataset")
Cell = tuple[str, ...]
"""A cell: (modality, region), or other strata of a split."""


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How patients are split: a random share of every cell of ``strata`` is tested, or exactly the ``holdout``."""

    test_fraction: float = 0.1
    seed: int = 0
    holdout: tuple[str, ...] = ()
    strata: tuple[str, ...] = ("modality", "region")

    def __post_init__(self) -> None:
        if not 0.0 <= self.test_fraction < 1.0:
            raise MedvarError(f"test_fraction must be at least 0 and below 1, but is {self.test_fraction}.")
        if unknown := set(self.strata) - set(STRATA):
            raise MedvarError(f"A split can be stratified by {', '.join(STRATA)}, but not by {unknown.pop()!r}.")
        if self.seed < 0:
            raise MedvarError(f"The seed of a split must be 0 or more, but is {self.seed}.")

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> SplitRule:
        """The rule in the recipe of a manifest."""
        values: dict[str, Any] = {name: recipe[name] for name in cls.__slots__ if name in recipe}
        for name in ("holdout", "strata"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the recipe of a manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def split_patients(
    cells: Mapping[str, Iterable[Cell]],
    *,
    test_fraction: float = 0.1,
    seed: int = 0,
    holdout: Iterable[str] = (),
    known: Mapping[str, str] | None = None,
    same: Iterable[Sequence[str]] = (),
) -> tuple[dict[str, str], list[str]]:
    """Split patients; returns patient → ``"train"`` or ``"test"``, and remarks about cells that could not be split.

    ``cells`` are the cells in which each patient has slices. Every cell with at least two patients keeps at least one
    for training and one for the test, unless each of them is the last of another cell; about ``test_fraction`` of the
    patients of each cell is tested. With ``holdout``, exactly those patients are tested. Patients in ``known`` keep
    their side. Names in one group of ``same`` are one patient and stay on one side: the test if one of them is held
    out, or else the side of a known one. The same input and seed give the same split. Raises `MedvarError` for unknown
    patients in ``holdout``.
    """
    known = known or {}
    held = set(holdout)
    unknown = sorted(held - set(cells))
    if unknown:
        raise MedvarError(f"Held-out patients {unknown} are not in the data; the patients are {listed(sorted(cells))}.")
    if not 0.0 <= test_fraction < 1.0:
        raise MedvarError(f"test_fraction must be at least 0 and below 1, but is {test_fraction}.")
    one = SamePatient(same)
    joined: dict[str, set[Cell]] = {}
    for name in cells:
        joined.setdefault(one.first(name), set()).update(cells[name])
    asked = {patient for patient in cells if known.get(patient, "test" if patient in held else "train") == "test"}
    test, settled = ({one.first(name) for name in names if name in cells} for names in (asked, known))
    if not held:
        test |= _drawn(joined, test, settled, test_fraction, seed)
    split = {patient: "test" if one.first(patient) in test else "train" for patient in sorted(cells)}
    return split, remarks_on(cells, split, test_fraction)


def remarks_on(cells: Mapping[str, Iterable[Cell]], split: Mapping[str, str], test_fraction: float) -> list[str]:
    """Remarks about cells without training patients and, if a test was requested, cells without test patients."""
    remarks = []
    for cell, patients in sorted(_members(cells).items()):
        tested = sum(split[patient] == "test" for patient in patients)
        if tested == len(patients):
            remarks.append(f"{' '.join(cell)}: every patient is held out, so nothing of it is trained on")
        elif not tested and test_fraction > 0:
            why = "it has one patient only" if len(patients) == 1 else "none of its patients is held out"
            remarks.append(f"{' '.join(cell)}: not tested, {why}")
    return remarks


def _drawn(
    cells: Mapping[str, set[Cell]], test: set[str], settled: set[str], test_fraction: float, seed: int
) -> set[str]:
    """Random patients to test in addition to ``test``, none of whom is in ``settled``."""
    members = _members(cells)
    tested = Counter(cell for patient in test for cell in cells[patient])
    drawn: set[str] = set()
    generator = np.random.Generator(np.random.Philox(seed))
    for cell in sorted(members):
        patients = members[cell]
        wanted = 0 if test_fraction == 0 else min(max(1, round(test_fraction * len(patients))), len(patients) - 1)
        for place in generator.permutation(len(patients)):
            if tested[cell] >= wanted:
                break
            patient = patients[place]
            free = patient not in test and patient not in drawn and patient not in settled
            if free and all(tested[other] < len(members[other]) - 1 for other in cells[patient]):
                drawn.add(patient)
                tested.update(cells[patient])
    return drawn


def _members(cells: Mapping[str, Iterable[Cell]]) -> dict[Cell, list[str]]:
    """Cell → its sorted patients."""
    members: dict[Cell, list[str]] = {}
    for patient in sorted(cells):
        for cell in sorted(set(cells[patient])):
            members.setdefault(cell, []).append(patient)
    return members
