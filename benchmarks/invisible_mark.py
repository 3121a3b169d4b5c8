"""Is the invisible mark found after what files go through, and what does it change?

    python benchmarks/invisible_mark.py [--bundle NAME] [--count N] [--set FOLDER] [--data SLICES] [--encoder FILE]

Draws N images of all conditions of the bundle, or takes those of a set of shards, with the mark and without, and
sends both through round trips. Prints the peak signal-to-noise ratio of the mark, and for each trip how many marked
images score above the threshold, how many unmarked ones do, and how many marked ones do at a threshold that 1 % of
unmarked ones pass. With SLICES, which `medvar prepare` wrote, real slices are scored, too, and the Fréchet distance of
the images to slices of held-out patients is printed with and without the mark: by the descriptor, and by the
encoder in FILE, such as the simclr.safetensors that `medvar evaluate images` keeps in its cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import find_bundle, read_bundle
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.types import FloatArray
from medvar_engine.write.invisible import FOUND, add_mark, mark_score

if TYPE_CHECKING:
    from medvar_engine.data.dataset import SliceDataset

BATCH = 8


def png(image: FloatArray) -> FloatArray:
    """Through 8 bits."""
    return np.rint((np.clip(image, -1, 1) + 1) * 127.5) / 127.5 - 1


def dicom(image: FloatArray) -> FloatArray:
    """Through 12 bits."""
    return np.rint((image + 1) / 2 * 4095) / 4095 * 2 - 1


def window(centre: float, width: float) -> Callable[[FloatArray, np.random.Generator], FloatArray]:
    """PNG, then DICOM, then shown in a window drawn about the given limits, and saved as PNG."""

    def trip(image: FloatArray, rng: np.random.Generator) -> FloatArray:
        middle, half = rng.uniform(-centre, centre), np.exp(rng.uniform(-width, width))
        return png((dicom(png(image)) - middle) / half)

    return trip


TRIPS: dict[str, Callable[[FloatArray, np.random.Generator], FloatArray]] = {
    "as it is": lambda image, rng: image,
    "PNG": lambda image, rng: png(image),
    "PNG, DICOM, same window": window(0, 0),
    "PNG, DICOM, another window": window(0.2, 0.3),
    "PNG, DICOM, a window twice as wide": lambda image, rng: png(dicom(png(image)) / 2),
}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="folder or name of a bundle; the shipped one by default")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--set", type=Path, help="a set of shards, in place of images that are drawn now")
    parser.add_argument("--data", type=Path, help="prepared slices")
    parser.add_argument("--encoder", help="another encoder for the Fréchet distance")
    options = parser.parse_args()
    plain = read(options.set) if options.set else draw(options.bundle, options.count)
    marked = np.stack([add_mark(image) for image in plain])
    print(
        f"{len(plain)} images; the mark is {10 * np.log10(4 / np.mean((marked - plain) ** 2)):.1f} dB below the range"
    )
    for name, trip in TRIPS.items():
        found, other = (scores(images, trip) for images in (marked, plain))
        strict = np.quantile(other, 0.99)
        print(
            f"{name}: found in {np.mean(found > FOUND):.1%} of marked and {np.mean(other > FOUND):.1%} of other "
            f"images; in {np.mean(found > strict):.1%} at 1 % false alarms (score above {strict:.1f})"
        )
    if options.data:
        from medvar_engine.data.dataset import SliceDataset

        data = SliceDataset(options.data)
        real = scores(data.batch(np.arange(0, len(data), 5))[:, 0], TRIPS["PNG"])
        print(f"found in {np.mean(real > FOUND):.2%} of {len(real)} real slices, the highest score {real.max():.1f}")
        held_out = SliceDataset(options.data, "test")
        for name in filter(None, ("descriptor", options.encoder)):
            distances = frechet_distances(name, held_out, {"plain": plain, "marked": marked})
            distances_text = ", ".join(f"{which} {value:.4g}" for which, value in distances.items())
            print(f"Fréchet distance to {len(held_out)} slices of held-out patients, by {name}: {distances_text}")


def draw(name: str | None, count: int) -> FloatArray:
    """Images ``(count, H, W)`` in [-1, 1], of each kind as many."""
    bundle = read_bundle(find_bundle(name))
    generator = Generator(OnnxBackend(bundle))
    conditions = [slice_type.condition for slice_type in bundle.slice_types]
    requests = [Request(conditions[i % len(conditions)], 1000 + i, bundle.sampling) for i in range(count)]
    made = []
    for first in range(0, count, BATCH):
        made.append(generator.image(generator.finish(generator.start(requests[first : first + BATCH]))))
        generator.cache.clear()
    return np.clip(np.concatenate(made), -1, 1)


def read(folder: Path) -> FloatArray:
    """Images ``(N, H, W)`` in [-1, 1] of a set."""
    return np.stack([made.image for made in ImageSet.open(folder)])


def frechet_distances(encoder: str, held_out: SliceDataset, sets: Mapping[str, FloatArray]) -> dict[str, float]:
    """Of each set of images to the slices, a batch at a time."""
    from medvar_engine.encoders.encoder import open_encoder
    from medvar_engine.evaluate.metrics.frechet import frechet_distance_to, moments

    opened = open_encoder(encoder)
    parts = np.array_split(np.arange(len(held_out)), -(-len(held_out) // 64))
    to_slices = frechet_distance_to(moments(np.concatenate([opened.encode(held_out.batch(p)[:, 0]) for p in parts])))
    return {name: to_slices(opened.encode(images)) for name, images in sets.items()}


def scores(images: FloatArray, trip: Callable[[FloatArray, np.random.Generator], FloatArray]) -> FloatArray:
    """The score of each after a trip."""
    return np.array([mark_score(trip(image, np.random.default_rng((0, i)))) for i, image in enumerate(images)])


if __name__ == "__main__":
    main()
