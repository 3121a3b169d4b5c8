"""Makes the contact sheet of README and the images of ``docs/explanation`` and ``docs/how-to``, with the shipped model.

``python docs/figures.py`` writes them into ``docs/images``. The same seeds give the same figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle, find_bundle, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.likelihood import token_map_to_image
from medvar_engine.generate.trace import Request
from medvar_engine.memorisation.screen import CopyScreen
from medvar_engine.request import Sampling
from medvar_engine.sets.generate_files import FileOptions
from medvar_engine.sets.generate_stack import stack_slices
from medvar_engine.sets.stack import Stack, stack_requests
from medvar_engine.types import FloatArray

IMAGES = Path(__file__).parent / "images"
SEED = 9
TILE, GAP, LINE = 128, 6, 22  # pixels
MARGIN = 96  # where the rows' names stand


def grid(rows: dict[str, Sequence[FloatArray]], heads: Sequence[str]) -> Image.Image:
    """Pictures ``(H, W)`` in [-1, 1] in rows with a name, under a line of heads and the mark SYNTHETIC."""
    width = MARGIN + len(heads) * (TILE + GAP)
    sheet = Image.new("L", (width, 2 * LINE + len(rows) * (TILE + GAP)), 255)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    pen.text((width // 2, LINE // 2), "SYNTHETIC", fill=0, font=font, anchor="mm")
    for i, head in enumerate(heads):
        pen.text((MARGIN + i * (TILE + GAP) + TILE // 2, LINE + LINE // 2), head, fill=0, font=font, anchor="mm")
    for j, (name, images) in enumerate(rows.items()):
        top = 2 * LINE + j * (TILE + GAP)
        pen.multiline_text((4, top + TILE // 2), name, fill=0, font=font, anchor="lm")
        for i, image in enumerate(images):
            grey = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
            tile = Image.fromarray(grey).resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(tile, (MARGIN + i * (TILE + GAP), top))
    return sheet


def first_image(generator: Generator, sampling: Sampling) -> Generation:
    """What both pictures begin with, as ``medvar generate`` makes it."""
    return generator.finish(generator.start([Request(Condition("CT", "chest", "axial"), seed=SEED, sampling=sampling)]))


def growing(generator: Generator, made: Generation) -> Image.Image:
    """Of each scale: the preview, what the scale added, and how undecided the model was."""
    previews = [generator.preview(made, k)[0] for k in range(made.depth)]
    added = [previews[0], *(after - before for before, after in pairwise(previews))]
    most = max(float(scale.max()) for scale in made.entropy)
    undecided = [token_map_to_image(2 * scale[0] / most - 1, TILE) for scale in made.entropy]
    heads = [f"scale {k}: {scale.shape[-1]}x{scale.shape[-1]}" for k, scale in enumerate(made.entropy)]
    return grid({"preview": previews, "added by\nthis scale": added, "entropy": undecided}, heads)


def resampled(generator: Generator, first: Generation) -> Image.Image:
    """What stays when finer scales are drawn again: the first image, then four others from each of three scales."""
    seeds = range(SEED + 1, SEED + 5)
    rows = {}
    for k in (1, 3, 6):
        variants = generator.finish(generator.resample_many(first.trace(0), k, seeds))
        rows[f"from\nscale {k}"] = [generator.image(first)[0], *generator.image(variants)]
    return grid(rows, ["the first", *(f"seed {seed}" for seed in seeds)])


SHEET = (  # rows of the contact sheet
    Condition("MR", "brain", "axial"),
    Condition("MR", "brain", "coronal"),
    Condition("MR", "brain", "sagittal"),
    Condition("CT", "chest", "axial"),
    Condition("CT", "chest", "coronal"),
    Condition("CT", "chest", "sagittal"),
    Condition("CT", "abdomen", "axial"),
    Condition("CT", "heart", "axial"),
    Condition("MR", "spine", "sagittal"),
    Condition("MR", "spine", "axial"),
    Condition("MR", "prostate", "axial"),
    Condition("MR", "abdomen", "coronal"),
)


def row_name(condition: Condition) -> str:
    """Modality, region and plane below each other."""
    return "\n".join(filter(None, (condition.modality, condition.region, condition.plane)))


def contact_sheet(generator: Generator, bundle: Bundle, columns: int = 8) -> Image.Image:
    """The first images of each kind of slice that the training index lets pass; none is chosen."""
    gate, rows = CopyScreen.of(bundle).gate, dict[str, Sequence[FloatArray]]()
    for condition in SHEET:
        shown: list[FloatArray] = []
        for seed in itertools.count(1):
            if len(shown) == columns:
                break
            made = generator.finish(generator.start([Request(condition, seed=seed, sampling=bundle.sampling)]))
            image = generator.image(made)
            if gate is None or not gate.check(image).flagged.any():
                shown.append(image[0])
        rows[row_name(condition)] = shown
    return grid(rows, [""] * columns)


STACKS = {  # the first slices of the rows of the figure of stacks, and the positions of the last ones
    Condition("MR", "brain", "sagittal", position=0.3): 0.7,
    Condition("MR", "brain", "axial", position=0.4): 0.8,
    Condition("CT", "chest", "axial", position=0.3): 0.7,
    Condition("CT", "abdomen", "axial", position=0.3): 0.7,
}


def stacks(generator: Generator, bundle: Bundle, shown: int = 8, every: int = 3) -> Image.Image:
    """Every third slice of a stack of each kind, 3 mm apart."""
    rows = dict[str, Sequence[FloatArray]]()
    for condition, last in STACKS.items():
        stack = Stack(shown * every, 3.0, last)
        requests = stack_requests(bundle, condition, SEED, bundle.sampling, stack)
        slices = stack_slices(generator, bundle, requests, stack, IMAGES / "none.nii.gz", FileOptions("nifti"))
        rows[row_name(condition)] = [one.pixels for one in slices][::every]
    return grid(rows, [f"{3 * every * i} mm" for i in range(shown)])


def main() -> None:
    """All of them."""
    bundle = read_bundle(find_bundle())
    generator = Generator(OnnxBackend(bundle))
    contact_sheet(generator, bundle).save(IMAGES / "sheet.png", optimize=True)
    first = first_image(generator, bundle.sampling)
    stacks(generator, bundle).save(IMAGES / "stacks.png", optimize=True)
    growing(generator, first).save(IMAGES / "growing.png", optimize=True)
    resampled(generator, first).save(IMAGES / "resampled.png", optimize=True)


if __name__ == "__main__":
    main()
