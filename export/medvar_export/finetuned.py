"""The description of a fine-tuned bundle: its base model and its own training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from medvar_engine.bundle.read import Bundle, SliceType
from medvar_engine.request import Sampling
from medvar_export.describe import describe, held_out_metrics
from medvar_export.model_card import model_card
from medvar_export.write_bundle import Description


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a fine-tuned model and the result of its training."""

    name: str  # name of the base model
    bundle: Bundle | None  # the base model; None if it was given as weights only
    how: str  # what was trained
    before: float  # held-out loss of the base model, in nats per token
    after: float
    minutes: float

    @property
    def summary(self) -> str:
        """A sentence about the improvement."""
        change = f"held-out loss {self.before:.3f} → {self.after:.3f} nats per token in {self.minutes:.1f} minutes"
        if self.after < self.before:
            return change
        return f"{change}: the result on held-out patients is not better than before, so use the base model."


def describe_finetuned(name: str, licence: str, data: Path, log: Path, origin: Origin) -> Description:
    """Like `describe`, with the training data, slice types and attributions of the base model added."""
    base = origin.bundle
    own = describe(name, licence, data, logs=[log], sampling=base.sampling if base else Sampling())
    statement = f"Fine-tuned from {origin.name} on {own.training_data}"
    if base is not None:
        statement += f"\n\nThe base model was trained on: {base.training_data}"
    attributions = tuple(dict.fromkeys((*own.attributions, *(base.attributions if base else ()))))
    slice_types = joined(own.slice_types, base.slice_types if base else ())
    notes = f"- {origin.summary[0].upper()}{origin.summary[1:]}\n- Of the base, {origin.how} were trained."
    if base is not None and base.guide:
        notes += "\n- Guidance moves away from the guide of the base, which was not trained further."
    card = model_card(name, licence, statement, attributions, slice_types, held_out_metrics([log]), notes)
    return replace(own, training_data=statement, attributions=attributions, slice_types=slice_types, card=card)


def joined(own: Iterable[SliceType], base: Iterable[SliceType]) -> tuple[SliceType, ...]:
    """The slice types of both.

    If both have one, spacing and values are those of the new data, and patients are added.
    """
    earlier = {slice_type.condition: slice_type for slice_type in base}
    slice_types = []
    for slice_type in own:
        if before := earlier.pop(slice_type.condition, None):
            slice_type = replace(
                slice_type, slices=slice_type.slices + before.slices, patients=slice_type.patients + before.patients
            )
        slice_types.append(slice_type)
    return tuple(sorted([*slice_types, *earlier.values()], key=lambda slice_type: str(slice_type.condition)))
