"""What a fine-tuned bundle says of itself: whose child it is, and what it learnt since."""

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
    """Where a fine-tuned model comes from, and how it was made."""

    name: str  # the base, as a person would name it
    bundle: Bundle | None  # the base, unless it was weights alone
    how: str  # what learnt
    before: float  # held-out loss of the base, nats a token
    after: float
    minutes: float

    @property
    def summary(self) -> str:
        """Whether it was worth it."""
        change = f"held-out loss {self.before:.3f} → {self.after:.3f} nats a token in {self.minutes:.1f} minutes"
        if self.after < self.before:
            return change
        return f"{change}: patients not trained on are not met better than before, so keep to the base."


def describe_finetuned(name: str, licence: str, data: Path, log: Path, origin: Origin) -> Description:
    """As `describe`, with all that the base says of itself: its training data, kinds of slice and attributions."""
    base = origin.bundle
    own = describe(name, licence, data, logs=[log], sampling=base.sampling if base else Sampling())
    statement = f"Fine-tuned from {origin.name} on {own.training_data}"
    if base is not None:
        statement += f"\n\nThe base was trained on: {base.training_data}"
    attributions = tuple(dict.fromkeys((*own.attributions, *(base.attributions if base else ()))))
    slice_types = joined(own.slice_types, base.slice_types if base else ())
    notes = f"- {origin.summary[0].upper()}{origin.summary[1:]}\n- Of the base, {origin.how} learnt."
    card = model_card(name, licence, statement, attributions, slice_types, held_out_metrics([log]), notes)
    return replace(own, training_data=statement, attributions=attributions, slice_types=slice_types, card=card)


def joined(own: Iterable[SliceType], base: Iterable[SliceType]) -> tuple[SliceType, ...]:
    """Slice types of both. Where both have one, spacing and values are the new data's, and patients are added up."""
    earlier = {slice_type.condition: slice_type for slice_type in base}
    slice_types = []
    for slice_type in own:
        if before := earlier.pop(slice_type.condition, None):
            slice_type = replace(
                slice_type, slices=slice_type.slices + before.slices, patients=slice_type.patients + before.patients
            )
        slice_types.append(slice_type)
    return tuple(sorted([*slice_types, *earlier.values()], key=lambda slice_type: str(slice_type.condition)))
