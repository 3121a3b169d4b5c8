"""Which sampling settings suit a bundle? Compares several, as those of the shipped model were chosen.

    python benchmarks/sampling_settings.py BUNDLE SLICES [SETTINGS …] [--count 192] [--sheet SHEET.png]

SETTINGS are changes of the bundle's settings, as ``guidance=2.1,coarse_top_p=0.8``; the bundle's own come first. Of
each it prints: the PSNR in dB that is lost when the finest scale of held-out slices is drawn; and, of generated images,
the strength of the gradient and the power of each octave of spatial frequency, relative to training slices of the same
conditions. The sheet has a row for each frequent slice type and setting, with training slices below. Judge by eye
first: broken outlines do not show in any of these numbers. `medvar evaluate images` has the other measures.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import open_bundle
from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.reconstruction import measure_reconstruction
from medvar_engine.evaluate.texture import compare_texture
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request, Sampling
from medvar_engine.train.batches import spread
from medvar_engine.train.stages.image_grids import write_grid
from medvar_engine.types import FloatArray

BATCH = 32
COLUMNS, TYPES = 8, 6  # images in a row of the sheet, and its slice types


def main() -> None:
    """Print a line for each setting, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("slices", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--count", type=int, default=192, help="images of each setting")
    parser.add_argument("--sheet", type=Path, help="a PNG to look at")
    options = parser.parse_args()
    try:
        compare(options)
    except MedvarError as error:
        parser.error(str(error))


def compare(options: argparse.Namespace) -> None:
    """What `main` does, with its arguments."""
    bundle = open_bundle(options.bundle)
    generator = Generator(OnnxBackend(bundle))
    training, held_out = (SliceDataset(options.slices, split) for split in ("train", "test"))
    chosen = spread(len(training), options.count)
    conditions = [bundle.labels.known(training.conditions[int(i)]) for i in chosen]
    settings = {"of the bundle": bundle.sampling} | {text: changed(bundle.sampling, text) for text in options.settings}
    for name, sampling in settings.items():
        lost = measure_reconstruction(generator, held_out, sampling).finest_drawn.value
        images = np.concatenate(list(generated(generator, conditions, sampling)))
        texture = compare_texture(images, training.batch(chosen)[:, 0], "training")
        octaves = " ".join(f"{ratio:.2f}" for ratio in texture.octaves)
        print(f"{name}: finest drawn -{lost:.2f} dB, gradient {texture.gradient:.2f}, octaves {octaves}", flush=True)
    if options.sheet:
        rows = list(sheet(generator, training, list(settings.values())))
        write_grid(options.sheet, torch.from_numpy(np.concatenate(rows))[:, None], COLUMNS)


def changed(sampling: Sampling, text: str) -> Sampling:
    """The settings with changes such as ``guidance=2.1,top_k=500``. Raises `MedvarError` for others."""
    try:
        values = dict(one.split("=") for one in text.split(","))
        return sampling.updated({name: json.loads(value) for name, value in values.items()})
    except (ValueError, TypeError) as error:
        raise MedvarError(f"{text!r} is not one of name=value,name=value with numbers: {error}") from error


def generated(generator: Generator, conditions: Sequence[Condition], sampling: Sampling) -> Iterator[FloatArray]:
    """Images ``(N, H, W)`` of these conditions in batches, with seeds that do not depend on the settings."""
    for first in range(0, len(conditions), BATCH):
        part = conditions[first : first + BATCH]
        requests = [Request(one, first + i, sampling) for i, one in enumerate(part)]
        yield generator.image(generator.finish(generator.start(requests)))


def sheet(generator: Generator, training: SliceDataset, settings: Sequence[Sampling]) -> Iterator[FloatArray]:
    """Rows ``(COLUMNS, H, W)``: of each frequent slice type, images of every setting, then training slices."""
    types = np.array([f"{one.modality} {one.region} {one.plane}" for one in training.conditions])
    for name, _ in Counter(types.tolist()).most_common(TYPES):
        members = np.flatnonzero(types == name)
        one = training.conditions[int(members[0])]
        for sampling in settings:
            yield from generated(generator, [Condition(one.modality, one.region, one.plane)] * COLUMNS, sampling)
        real = training.batch(members[spread(len(members), COLUMNS)])[:, 0]
        yield np.resize(real, (COLUMNS, *real.shape[1:]))  # repeated if there are fewer


if __name__ == "__main__":
    main()
