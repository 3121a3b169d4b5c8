"""The layout of an ImageFolder: below ``images`` one folder for each condition, as loaders of classifiers expect."""

from __future__ import annotations

from collections.abc import Collection

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.sets.layouts.data_card import card
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.write.formats import ENDINGS

_ABOUT = """An ImageFolder: give `images` to a loader, such as torchvision's `ImageFolder`; each folder in it is a
condition. The name of a file is the number of its image."""


def describe(plan: SetPlan, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """The data card."""
    return {"README.md": card(plan, bundle, _ABOUT, withheld)}


def place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of an image."""
    return f"images/{plan.mixture.folders()[condition]}/{number:08d}{ENDINGS[plan.kind.format]}"


def mask_place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of the mask of an image: not below ``images``, because a loader reads all files there."""
    ending = ".png" if plan.kind.format == "png16" else ENDINGS[plan.kind.format]
    return f"masks/{plan.mixture.folders()[condition]}/{number:08d}{ending}"
