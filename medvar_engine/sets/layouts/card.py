"""The data card of a set: what it is, how much of what, by which model, and what it must not be taken for."""

from __future__ import annotations

import medvar_engine
from medvar_engine.bundle import Bundle
from medvar_engine.sets.plan import Plan
from medvar_engine.write.provenance import STATEMENT


def card(plan: Plan, bundle: Bundle, about: str) -> str:
    """Markdown. ``about`` says how the files lie."""
    rows = "\n".join(f"| {condition} | {count} |" for condition, count in plan.counts().items())
    sources = "\n".join(f"- {source}" for source in bundle.attributions) or "- none stated"
    return f"""# {plan.count} synthetic images

**SYNTHETIC.** {STATEMENT} Models trained or tested on these images must say so.

{about}

| condition | images |
| --- | --- |
{rows}

## Where they come from

Drawn by the model {bundle.name} (sha256 `{bundle.digest}`) with napari-medvar {medvar_engine.__version__}, begun
{plan.created}. Image number i follows from `set.json` alone: condition, sampling and seed are in it, and every image
carries its own trace.

Training data of the model: {bundle.training_data}

Licence of the model: {bundle.licence}. Attributions:

{sources}
"""
