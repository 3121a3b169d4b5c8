"""Splits patients, never slices, into train and test, so that every combination of modality and region is tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medvar_engine.conditions import listed
from medvar_engine.data.identity.same_patient import SamePatient
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted.check_fields import first_error, sentence

STRATA = ("modality", "region", "dataset")
Stratum = tuple[str, ...]
"""A stratum: (modality, region), or other strata of a split."""


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How patients are split: a random share of every stratum is tested, or exactly the ``holdout``."""

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
        """The rule in the recipe of a manifest. Raises `MedvarError` if it is damaged."""
        values = {name: recipe[name] for name in cls.__slots__ if name in recipe}
        try:
            return _checked_kinds().validate_python(values)
        except (ValidationError, MedvarError) as error:
            what = sentence(first_error(error), {}) if isinstance(error, ValidationError) else str(error)
            raise MedvarError(f"The split in the manifest is damaged: {what} Prepare the data again.") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the recipe of a manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@cache
def _checked_kinds() -> TypeAdapter[SplitRule]:
    """Checks the kinds of all values; made once, because that takes longer than a check."""
    return TypeAdapter(SplitRule)


def split_patients(
    strata: Mapping[str, Iterable[Stratum]],
    *,
    test_fraction: float = 0.1,
    seed: int = 0,
    holdout: Iterable[str] = (),
    known: Mapping[str, str] | None = None,
    same: Iterable[Sequence[str]] = (),
) -> tuple[dict[str, str], list[str]]:
    """Split patients; returns patient → ``"train"`` or ``"test"``, and remarks about strata that could not be split.

    ``strata`` are those in which each patient has slices. Every stratum with at least two patients keeps at least one
    for training and one for the test, unless each of them is the last of another stratum; about ``test_fraction`` of
    the patients of each stratum is tested. With ``holdout``, exactly those patients are tested. Patients in ``known``
    keep their side. Names in one group of ``same`` are one patient and stay on one side: the test if one of them is
    held out, or else the side of a known one. The same input and seed give the same split. Raises `MedvarError` for
    unknown patients in ``holdout``.
    """
    known = known or {}
    held_out = set(holdout)
    unknown = sorted(held_out - set(strata))
    if unknown:
        raise MedvarError(
            f"Held-out patients {unknown} are not in the data; the patients are {listed(sorted(strata))}."
        )
    if not 0.0 <= test_fraction < 1.0:
        raise MedvarError(f"test_fraction must be at least 0 and below 1, but is {test_fraction}.")
    one = SamePatient(same)
    joined: dict[str, set[Stratum]] = {}
    for name in strata:
        joined.setdefault(one.first(name), set()).update(strata[name])
    asked = {patient for patient in strata if known.get(patient, "test" if patient in held_out else "train") == "test"}
    test, fixed = ({one.first(name) for name in names if name in strata} for names in (asked, known))
    if not held_out:
        test |= _drawn(joined, test, fixed, test_fraction, seed)
    split = {patient: "test" if one.first(patient) in test else "train" for patient in sorted(strata)}
    return split, remarks_on(strata, split, test_fraction)


def remarks_on(strata: Mapping[str, Iterable[Stratum]], split: Mapping[str, str], test_fraction: float) -> list[str]:
    """Remarks about strata without training patients and, if a test was requested, strata without test patients."""
    remarks = []
    for stratum, patients in sorted(_members(strata).items()):
        tested = sum(split[patient] == "test" for patient in patients)
        if tested == len(patients):
            remarks.append(f"{' '.join(stratum)}: every patient is held out, so nothing of it is trained on")
        elif not tested and test_fraction > 0:
            why = "it has one patient only" if len(patients) == 1 else "none of its patients is held out"
            remarks.append(f"{' '.join(stratum)}: not tested, {why}")
    return remarks


def _drawn(
    strata: Mapping[str, set[Stratum]], test: set[str], fixed: set[str], test_fraction: float, seed: int
) -> set[str]:
    """Random patients to test in addition to ``test``, and not in ``fixed``."""
    members = _members(strata)
    tested = Counter(stratum for patient in test for stratum in strata[patient])
    drawn: set[str] = set()
    generator = np.random.Generator(np.random.Philox(seed))
    for stratum in sorted(members):
        patients = members[stratum]
        wanted = 0 if test_fraction == 0 else min(max(1, round(test_fraction * len(patients))), len(patients) - 1)
        for place in generator.permutation(len(patients)):
            if tested[stratum] >= wanted:
                break
            patient = patients[place]
            free = patient not in test and patient not in drawn and patient not in fixed
            if free and all(tested[other] < len(members[other]) - 1 for other in strata[patient]):
                drawn.add(patient)
                tested.update(strata[patient])
    return drawn


def _members(strata: Mapping[str, Iterable[Stratum]]) -> dict[Stratum, list[str]]:
    """Stratum → its sorted patients."""
    members: dict[Stratum, list[str]] = {}
    for patient in sorted(strata):
        for stratum in sorted(set(strata[patient])):
            members.setdefault(stratum, []).append(patient)
    return members
