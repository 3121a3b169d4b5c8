"""`SetPlan`: everything that determines a synthetic dataset, and its units, which are ranges of image numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.copy_risk import CopyPolicy
from medvar_engine.sets.mixture import Mixture
from medvar_engine.storage import sha256_of
from medvar_engine.write.marks import UNMARKED, Marks

UNIT_IMAGES = 64
MOST_IMAGES = 10_000_000
# The names of `CopyPolicy` in set.json, which enter the identity of a dataset.
_STORED: dict[CopyPolicy, str] = {"withhold": "withhold", "flag": "mark", "off": "allow"}
_POLICIES = {word: policy for policy, word in _STORED.items()}
_AT_ONCE = 100_000  # requests in memory while counting


@dataclass(frozen=True, slots=True)
class SetFormat:
    """How a dataset is written: a layout of `medvar_engine.sets.layouts`, a format of `medvar_engine.write.formats`."""

    layout: str = "shards"
    format: str = "uint16"

    def __str__(self) -> str:
        return f"{self.layout} ({self.format})"


SHARDS = SetFormat()


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Image 0…count-1 of a mixture, drawn by the model with this digest."""

    mixture: Mixture
    count: int
    bundle_id: str
    kind: SetFormat = SHARDS
    created: str = ""  # when the dataset was begun, ISO 8601; used for times in files, so that they are reproducible
    unit_images: int = UNIT_IMAGES
    copy_policy: CopyPolicy = "off"  # what is done with possible copies of training slices
    gate: str = ""  # sha256 of the gate that finds them; empty when the policy is off
    marks: Marks = UNMARKED  # what is written into the pixels

    def __post_init__(self) -> None:
        if not 0 < self.count <= MOST_IMAGES:
            raise MedvarError(f"A dataset can have 1 to {MOST_IMAGES} images, but {self.count} are requested.")
        if self.unit_images < 1:
            raise MedvarError(f"A unit needs at least 1 image, but {self.unit_images} are requested.")
        if self.mixture.total is not None and self.mixture.total != self.count:
            raise MedvarError(
                f"The counts in the mixture are {self.mixture.total} images together, but {self.count} are requested. "
                "Leave --count out, or give weights in place of counts."
            )
        self.mixture.check_seeds(self.count)

    @property
    def identity(self) -> str:
        """sha256 of everything that determines an image; a larger dataset of the same images has the same sha256."""
        made_of = {name: value for name, value in self.to_dict().items() if name != "count"}
        return sha256_of(json.dumps(made_of, sort_keys=True))

    @property
    def units(self) -> int:
        """The number of units; the last one may be shorter."""
        return -(-self.count // self.unit_images)

    def numbers(self, unit: int) -> range:
        """The image numbers of a unit."""
        first = unit * self.unit_images
        return range(first, min(first + self.unit_images, self.count))

    def conditions(self, withheld: Collection[int] = ()) -> Iterator[tuple[int, Condition, int]]:
        """Number, condition and seed of every image except those ``withheld``."""
        for first in range(0, self.count, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, self.count))
            for number, request in zip(numbers, self.mixture.requests(numbers), strict=True):
                if number not in withheld:
                    yield number, request.condition, request.seed

    def counts(self, withheld: Collection[int] = ()) -> dict[Condition, int]:
        """The number of images of each condition except those ``withheld``, in the order of the mixture."""
        found = Counter(condition for _, condition, _ in self.conditions(withheld))
        return {condition: found[condition] for condition in self.mixture.folders()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        # Left out if they have their defaults, so that datasets of older versions keep their identity.
        checked = {"memorised": _STORED[self.copy_policy], "gate": self.gate} if self.gate else {}
        return {
            **checked,
            **(self.marks.to_dict() if self.marks else {}),
            "model": self.bundle_id,
            "count": self.count,
            "layout": self.kind.layout,
            "format": self.kind.format,
            "unit_images": self.unit_images,
            "created": self.created,
            "mix": self.mixture.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SetPlan:
        """The inverse of `to_dict`. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        datetime.fromisoformat(values["created"])
        return cls(
            Mixture.from_dict(values["mix"]),
            int(values["count"]),
            str(values["model"]),
            SetFormat(str(values["layout"]), str(values["format"])),
            str(values["created"]),
            int(values["unit_images"]),
            _POLICIES[values.get("memorised", "allow")],
            str(values.get("gate", "")),
            Marks.from_dict(values),
        )
