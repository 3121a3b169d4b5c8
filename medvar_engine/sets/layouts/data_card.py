"""The data card of a synthetic dataset: content, counts, model, and limits of use."""

from __future__ import annotations

from collections.abc import Collection

import medvar_engine
from medvar_engine.bundle.read import Bundle
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.write.provenance import STATEMENT

_FLAGGED = {
    "withhold": "was withheld. Their numbers stay unused; `set.json` lists them under `too_near`.",
    "flag": "is flagged in its file, and `set.json` lists them under `too_near`.",
}


def card(plan: SetPlan, bundle: Bundle, about: str, withheld: Collection[int]) -> str:
    """The card in Markdown. ``about`` describes the layout."""
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


def _copies(plan: SetPlan) -> str:
    if not plan.gate:
        return "The images were not checked for copies of training slices."
    return f"An image closer to a training slice than almost all slices of other patients {_FLAGGED[plan.copy_policy]}"
