"""Split patients, never slices, into train and test, so that every cell of modality × region is tested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from medvar_engine.errors import MedvarError

Cell = tuple[str, str]
"""(modality, region)"""


def split_patients(
    cells: Mapping[str, Iterable[Cell]], *, test_fraction: float = 0.1, seed: int = 0, holdout: Iterable[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Patient → ``"train"`` or ``"test"``, and remarks about cells that could not be split.

    ``cells`` gives the cells in which a patient has slices. Every cell of two patients or more gives at least one to
    the test, and keeps at least one for training; about ``test_fraction`` of each cell is tested. With ``holdout``
    those patients, and no others, are the test. The same input and seed give the same split.
    """
    held = set(holdout)
    unknown = sorted(held - set(cells))
    if unknown:
        raise MedvarError(f"Held-out patients {unknown} are not in the data; the patients are {sorted(cells)}.")
    if not 0.0 <= test_fraction < 1.0:
        raise MedvarError(f"test_fraction is a number from 0 to below 1, but got {test_fraction}.")
    members: dict[Cell, list[str]] = {}
    for patient in sorted(cells):
        for cell in sorted(set(cells[patient])):
            members.setdefault(cell, []).append(patient)
    test = set(held)
    if not held and test_fraction > 0:
        generator = np.random.Generator(np.random.Philox(seed))
        for cell in sorted(members):
            patients = members[cell]
            order = [patients[i] for i in generator.permutation(len(patients))]
            wanted = min(max(1, round(test_fraction * len(patients))), len(patients) - 1)
            for patient in order:
                if sum(one in test for one in patients) >= wanted:
                    break
                if patient not in test and _may_leave(patient, cells, members, test):
                    test.add(patient)
    remarks = []
    for cell, patients in sorted(members.items()):
        tested = [patient for patient in patients if patient in test]
        if len(tested) == len(patients):
            remarks.append(f"{' '.join(cell)}: every patient is held out, so nothing of it is trained on")
        elif not tested and test_fraction > 0:
            why = "it has one patient only" if len(patients) == 1 else "none of its patients is held out"
            remarks.append(f"{' '.join(cell)}: not tested, {why}")
    return {patient: "test" if patient in test else "train" for patient in sorted(cells)}, remarks


def _may_leave(
    patient: str, cells: Mapping[str, Iterable[Cell]], members: dict[Cell, list[str]], test: set[str]
) -> bool:
    """Whether each of the patient's cells keeps somebody to train on without them."""
    return all(any(other != patient and other not in test for other in members[cell]) for cell in set(cells[patient]))
