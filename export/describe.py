"""What a bundle says of itself, drawn from the prepared slices it was trained on and the logs of its training."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

from medvar_engine.bundle import Cell
from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import SliceRow
from medvar_engine.errors import MedvarError
from medvar_engine.sampling import Sampling
from medvar_export.card import model_card
from medvar_export.write_bundle import Description


def describe(
    name: str, licence: str, data: Path, *, logs: Iterable[Path] = (), notes: str = "", sampling: Sampling = Sampling()
) -> Description:
    """A bundle's description: cells, attributions, training data statement and model card.

    ``data`` is the folder that the model was trained on, ``logs`` the ``log.csv`` of its runs, ``notes`` Markdown
    to add to the card.
    """
    dataset = SliceDataset(data, split="train")
    manifest = dataset.manifest
    cells = _cells(dataset.rows)
    held_out = sorted(patient for patient, split in manifest.split.items() if split == "test")
    people = sorted({row.patient for row in dataset.rows})
    statement = (
        f"{len(dataset)} slices of {len(people)} people ({', '.join(people)}). "
        f"Held out and never trained on: {', '.join(held_out) or 'nobody'}."
    )
    attributions = tuple(f"{source['attribution']}: {', '.join(source['patients'])}" for source in manifest.sources)
    figures = last_figures(logs)
    card = model_card(name, licence, statement, attributions, cells, figures, notes)
    return Description(name, licence, attributions, statement, card, cells, sampling)


def last_figures(logs: Iterable[Path]) -> dict[str, float]:
    """The last value of every figure measured on held-out patients, from training logs."""
    figures: dict[str, float] = {}
    for path in logs:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            figures |= {
                r["name"]: float(r["value"]) for r in rows if r["name"].startswith(("held_out", "psnr_", "codes"))
            }
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise MedvarError(f"{path} is not a training log (step, name, value): {error}") from error
    return figures


def _cells(rows: Iterable[SliceRow]) -> tuple[Cell, ...]:
    groups: Mapping[Condition, list[SliceRow]] = defaultdict(list)
    for row in rows:
        groups[Condition(row.modality, row.region, row.plane)].append(row)
    return tuple(_cell(condition, group) for condition, group in sorted(groups.items(), key=lambda item: str(item[0])))


def _cell(condition: Condition, rows: list[SliceRow]) -> Cell:
    spacings = [row.spacing_mm for row in rows if row.spacing_mm]
    physical = {row.unit for row in rows} == {"HU"}
    return Cell(
        condition,
        slices=len(rows),
        patients=len({row.patient for row in rows}),
        spacing_mm=round(median(spacings), 4) if spacings else None,
        # MR has no unit: its values are shares of each volume's own range.
        low=median(row.low for row in rows) if physical else 0.0,
        high=median(row.high for row in rows) if physical else 1.0,
        unit="HU" if physical else "arbitrary",
    )
