"""How well masks fit their images, and how smooth stacks are."""

from __future__ import annotations

from collections.abc import Mapping

from medvar_engine.evaluate.pairs.pair_quality import PairQuality
from medvar_engine.evaluate.report.metric_cell import metric_cell
from medvar_engine.evaluate.stack_smoothness import StackSmoothness
from medvar_engine.page.elements import Child, Markup, counted, element, join, table


def pair_section(found: PairQuality | None) -> Markup:
    """Dice of masks by a segmenter of real pairs, and copies."""
    if found is None:
        return element("p", "Masks were not evaluated. Both the images and the slices need masks.")
    text = (
        f"A small U-Net was trained on training pairs in {counted(found.steps, 'step')}. The table shows the Dice "
        "between masks and the U-Net's segmentation of their images, for synthetic and for held-out pairs; the value "
        "of held-out pairs is ideal. A mask may be a copy if it is closer to a training mask than 97 % of held-out "
        "masks are."
    )
    rows: list[tuple[Child, ...]] = [("all structures", metric_cell(found.synthetic), metric_cell(found.held_out))]
    rows += [(name, *map(_number, (one["synthetic"], one["held out"]))) for name, one in found.by_structure.items()]
    copies: list[tuple[Child, ...]] = [("masks", metric_cell(found.mask_copies, ".1%"))]
    if found.pair_copies is not None:
        copies.append(("pairs: image and mask", metric_cell(found.pair_copies, ".1%")))
    return join(
        element("h3", "Masks"),
        element("p", text, class_="quiet"),
        table(("Dice", "synthetic pairs", "held-out pairs"), rows),
        table(("possible copies", "share"), copies),
    )


def stack_section(found: Mapping[str, StackSmoothness]) -> Markup:
    """Differences of neighbours, synthetic and real."""
    if not found:
        return Markup("")
    text = (
        "Mean absolute difference between neighbouring slices, on a scale from -1 to 1: in stacks, in real volumes at "
        "the same distance, and between images of different seeds. The value of real volumes is ideal."
    )
    rows: list[tuple[Child, ...]] = [
        (name, *(f"{value:.3g}" for value in (one.spacing_mm, one.stacks, one.real, one.unrelated, one.ratio)))
        for name, one in found.items()
    ]
    columns = ("label", "distance, mm", "stacks", "real volumes", "different seeds", "stacks / real")
    return join(element("h3", "Stacks"), element("p", text, class_="quiet"), table(columns, rows))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
