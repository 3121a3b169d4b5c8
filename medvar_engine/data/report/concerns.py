"""Concerns that may invalidate an evaluation, shown at the top of the page and on the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.near_duplicates import Duplicates, Pair
from medvar_engine.data.report import counts
from medvar_engine.page.elements import counted, number, visible

_NAMES = 10


@dataclass(frozen=True, slots=True)
class Concern:
    """A concern before training. A ``grave`` one must be corrected."""

    title: str
    text: str
    grave: bool

    def __str__(self) -> str:
        return visible(f"{self.title} {self.text}")


def concerns(dataset: SliceDataset, found: Duplicates) -> list[Concern]:
    """The concerns about a dataset with both splits, grave ones first."""
    split = dataset.manifest.split
    alike = counts.alike_names(split)
    across = [names for names in alike if len({split[name] for name in names}) > 1]
    within = [names for names in alike if names not in across]
    untested = [label.name for label in counts.labels(dataset) if not label.test]
    raised = []
    if found.leaks:
        text = (
            f"{at_least(found)}{counted(len(found.leaks), 'pair')} of near-duplicates with one slice in training and "
            f"one in test: {_patients(dataset, found.leaks)}. What is measured on the test slices is too good. If two "
            "names are one patient, name them the same way in index.csv and prepare again, or remove one."
        )
        raised.append(Concern("Training and test share slices.", text, grave=True))
    if across:
        text = f"These names differ in case, marks or zeros only: {_same(across)}."
        raised.append(Concern("Training and test may share a patient.", text, grave=True))
    if found.patients:
        text = (
            f"{at_least(found)}{counted(len(found.patients), 'pair')} of near-duplicates of different patients on the "
            f"same side of the split: {_patients(dataset, found.patients)}."
        )
        raised.append(Concern("One patient may have two names.", text, grave=True))
    if within:
        text = f"They may be one patient: {_same(within)}."
        raised.append(Concern("Some names are nearly the same.", text, grave=True))
    if untested:
        text = f"There are no test slices of {_listed(untested)}."
        raised.append(Concern("Not everything is tested.", text, grave=False))
    if not found.leaks and not across:
        text = "No patient and no near-duplicate slice was found on both sides."
        raised.append(Concern("Training and test are apart.", text, grave=False))
    return raised


def at_least(found: Duplicates) -> str:
    """The words before the number of duplicates if there may be more."""
    return "" if found.complete else "At least "


def patient_pairs(dataset: SliceDataset, found: Sequence[Pair]) -> Counter[tuple[str, str]]:
    """The number of pairs for every two patients."""
    patients = dataset.columns("patient")["patient"]
    named = ((patients[pair.first].as_py(), patients[pair.second].as_py()) for pair in found)
    return Counter((min(pair), max(pair)) for pair in named)


def _patients(dataset: SliceDataset, found: Sequence[Pair]) -> str:
    return _listed([" and ".join(names) for names, _ in patient_pairs(dataset, found).most_common()])


def _same(groups: Sequence[Sequence[str]]) -> str:
    return _listed([" = ".join(names) for names in groups])


def _listed(names: Sequence[str]) -> str:
    more = f" and {number(len(names) - _NAMES)} more" if len(names) > _NAMES else ""
    return "; ".join(names[:_NAMES]) + more
