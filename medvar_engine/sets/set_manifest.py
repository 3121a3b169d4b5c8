"""``set.json``: the manifest of a synthetic dataset, by which a later run continues it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medvar_engine
from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import Structures, from_dicts, to_dicts
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.storage import write_files
from medvar_engine.untrusted import plain_json
from medvar_engine.write.provenance import STATEMENT

SCHEMA_VERSION = 1
SET = "set.json"
UNITS = "units"  # the folder of the notes with the files of each unit


@dataclass(frozen=True, slots=True)
class SetManifest:
    """The plan of a dataset, its model and, once it is complete, the sha256 of the note of every unit."""

    plan: SetPlan
    model: dict[str, Any]
    units: tuple[str, ...] = ()
    flagged: frozenset[int] = frozenset()  # numbers of images that may be copies of training slices

    @property
    def complete(self) -> bool:
        """Whether every unit is finished."""
        return len(self.units) == self.plan.units

    @property
    def withheld(self) -> frozenset[int]:
        """Numbers of images that were withheld, because they may be copies of training slices."""
        return self.flagged if self.plan.copy_policy == "withhold" else frozenset()

    @property
    def structures(self) -> Structures:
        """The structures of masks, in the order of their values from 1 up; empty without masks."""
        return from_dicts(self.model.get("structures", ()))

    def write(self, folder: Path) -> None:
        """Replace the manifest of a folder in one step."""
        write_files({folder / SET: json.dumps(self._to_dict(), indent=1, ensure_ascii=False).encode()})

    @classmethod
    def read(cls, folder: Path) -> SetManifest:
        """Read the manifest of a dataset. Raises `MedvarError` when it is missing, damaged or of another version."""
        path = folder / SET
        try:
            values = plain_json.read(path)
            if values["medvar_set"] != SCHEMA_VERSION:
                raise MedvarError(
                    f"{path} has format {values['medvar_set']}; this version reads {SCHEMA_VERSION}. Update medvar."
                )
            found = cls(
                SetPlan.from_dict(values["plan"]),
                dict(values["model"]),
                tuple(map(str, values["units"])),
                frozenset(map(int, values.get("too_near", ()))),
            )
            _ = found.structures  # checks that they can be read
            return found
        except FileNotFoundError as error:
            raise MedvarError(
                f"{folder} has no {SET}, so it is not a synthetic dataset. Make one with `medvar generate --mix`."
            ) from error
        except OSError as error:
            raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MedvarError(f"{path} is damaged ({error!r}). Make the dataset again in another folder.") from error

    def _to_dict(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "medvar_set": SCHEMA_VERSION,
            "synthetic": True,
            "statement": f"SYNTHETIC. {STATEMENT}",
            "complete": self.complete,
            "images": plan.count - len(self.withheld),
            "counts": {str(condition): count for condition, count in plan.counts(self.withheld).items()},
            "model": self.model,
            "software": {"napari-medvar": medvar_engine.__version__},
            "plan": plan.to_dict(),
            "units": list(self.units),
            **({"too_near": sorted(self.flagged)} if plan.gate else {}),
        }


def about_model(bundle: Bundle) -> dict[str, Any]:
    """The record of the bundle in a dataset."""
    return {
        "name": bundle.name,
        "sha256": bundle.bundle_id,
        "licence": bundle.licence,
        "attributions": list(bundle.attributions),
        "training_data": bundle.training_data,
        **({"structures": to_dicts(bundle.structures)} if bundle.structures else {}),
    }
