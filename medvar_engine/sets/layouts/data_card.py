"""The data card of a set: what it is, how much of what, by which model, and what it must not be taken for."""

from __future__ import annotations

from collections.abc import Collection

import medvar_engine
from medvar_engine.bundle.read import Bundle
from medvar_engine.sets.set_plan import Plan
from medvar_engine.write.provenance import STATEMENT

_FLAGGED = {
    "withhold": "was withheld. Numbers count on over those; `set.json` lists them under `too_near`.",
    "flag": "is flagged in what is written with it, and `set.json` lists them under `too_near`.",
}


def card(plan: Plan, bundle: Bundle, about: str, withheld: Collection[int]) -> str:
    """Markdown. ``about`` says how the files lie."""
    rows = "\n".join(f"| {condition} | {count} |" for condition, count in plan.counts(withheld).items())
    sources = "\n".join(f"- {source}" for source in bundle.attributions) or "- none stated"
    return f"""# {plan.count - len(withheld)} synthetic images

**SYNTHETIC.** {STATEMENT} Models trained or tested on these images must say so.

{about}

| condition | images |
| --- | --- |
{rows}

{_copies(plan)}

## Where they come from

Drawn by the model {bundle.name} (sha256 `{plan.bundle_id}`) with napari-medvar {medvar_engine.__version__}, begun
{plan.created}. Image number i follows from `set.json` alone: condition, sampling and seed are in it, and every image
carries its own trace.

Training data of the model: {bundle.training_data}

Licence of the model: {bundle.licence}. Attributions:

{sources}
"""


def _copies(plan: Plan) -> str:
    if not plan.gate:
        return "Whether any of them is nearly a copy of a training slice was not asked."
    return f"What is nearer to a training slice than nearly all slices of other people are {_FLAGGED[plan.copy_policy]}"
