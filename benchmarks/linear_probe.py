"""What do a model's features know of slices of people it has never seen?

    python benchmarks/linear_probe.py SLICES [--bundle FOLDER] [--slices 24]

SLICES is a folder that `medvar prepare` wrote. A logistic regression on the features (and, to compare with, on the
pixels, averaged to 32×32) is trained on slices of the training people and tried on those held out. ``--slices`` bounds
how many are taken of each person, region and plane. Prints accuracy, and balanced accuracy: the mean over classes. Of
few people these are rough figures. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medvar_engine.arrays import FloatArray
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle import find_bundle, read_bundle
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.generator import Generator
from medvar_engine.trace import Request

BATCH = 16
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the fit; the best on the held-out people is given, for both alike


class Slices(NamedTuple):
    """What is told apart, and by what."""

    features: dict[str, FloatArray]  # name → (N, D)
    labels: dict[str, np.ndarray]  # factor → (N,)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="prepared slices")
    parser.add_argument("--bundle", type=Path, help="an exported model; the shipped one by default")
    parser.add_argument("--slices", type=int, default=24, help="of each person, region and plane (default 24)")
    options = parser.parse_args()
    generator = Generator(OnnxBackend(read_bundle(find_bundle(options.bundle))))
    train, test = (read(options.folder, split, options.slices, generator) for split in ("train", "test"))
    for factor in ("region", "plane"):
        known = [part.labels[factor] != "" for part in (train, test)]
        print(f"\n{factor}: {known[0].sum()} slices to learn from, {known[1].sum()} of other people")
        for name in train.features:
            parts = [(p.features[name][k], p.labels[factor][k]) for p, k in zip((train, test), known, strict=True)]
            plain, balanced = max(probe(*parts[0], *parts[1], strength) for strength in STRENGTHS)
            print(f"  {name:<10} {parts[0][0].shape[1]:>6} numbers   accuracy {plain:.3f}   balanced {balanced:.3f}")


def probe(x: FloatArray, y: np.ndarray, new: FloatArray, truth: np.ndarray, strength: float) -> tuple[float, float]:
    """Accuracy and balanced accuracy on ``new`` of a logistic regression of ``y`` on ``x``."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=300, class_weight="balanced", random_state=0)
    )
    said = model.fit(x, y).predict(new)
    return float(accuracy_score(truth, said)), float(balanced_accuracy_score(truth, said))


def read(folder: Path, split: str, most: int, generator: Generator) -> Slices:
    """Features and labels of one split."""
    dataset = SliceDataset(folder, split=split)
    chosen = list(choose(dataset, most))
    pixels, learnt = [], []
    for first in range(0, len(chosen), BATCH):
        images = dataset.batch(chosen[first : first + BATCH])[:, 0]
        step = dataset.size // 32
        pixels.append(images.reshape(len(images), 32, step, 32, step).mean(axis=(2, 4)).reshape(len(images), -1))
        learnt.append(generator.features(generator.encode(images, [Request()] * len(images))))
    rows = [dataset.rows[i] for i in chosen]
    labels = {factor: np.array([getattr(row, factor) or "" for row in rows]) for factor in ("region", "plane")}
    return Slices({"pixels": np.concatenate(pixels), "features": np.concatenate(learnt)}, labels)


def choose(dataset: SliceDataset, most: int) -> Iterator[int]:
    """At most so many slices of each person, region and plane, at random but always the same."""
    groups: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(dataset.rows):
        groups[row.patient, row.region, row.plane].append(i)
    rng = np.random.default_rng(0)
    for group in groups.values():
        yield from sorted(rng.permutation(group)[:most].tolist())


if __name__ == "__main__":
    main()
