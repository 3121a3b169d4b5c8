"""What do a model's features know of slices of patients that it has not seen?

    python benchmarks/linear_probe.py SLICES [--bundle FOLDER] [--slices 12] [--likelihood]

SLICES is a folder that `medvar prepare` wrote. A logistic regression on the features (and, to compare with, on the
pixels, averaged to 32×32) is fitted to the training patients. How strongly it is held back is chosen by leaving out one
of them after the other, for features and pixels alike; the patients whom the model has not seen have no part in it.
Then each patient is left out in turn and tested. ``--slices`` bounds how many are taken of each patient,
region and plane; ``--likelihood`` adds how well every kind of training slice explains an image, and what the model
itself says, without any fit: the label of the kind that explains it best. That reads every image some twenty times.

Prints balanced accuracy, the mean over classes, with the interval that holds 95 % of it when patients are drawn again,
and each class's share of those held out. With few patients all numbers are rough. The model knows the slices of
patients that it was trained on, and by likelihood even their labels: those are not reported. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle, find_bundle, read_bundle
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.metrics.bootstrap import estimate
from medvar_engine.generate.features import (
    averaged,
    feature_names,
    likelihood_features,
    multiscale_features,
    probe_columns,
)
from medvar_engine.generate.generator import Generator
from medvar_engine.types import FloatArray

BATCH = 16
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


class Slices(NamedTuple):
    """What is told apart, by what, and whose it is."""

    inputs: dict[str, FloatArray]  # name → (N, D)
    labels: dict[str, np.ndarray]  # factor → (N,)
    said: dict[str, np.ndarray]  # factor → what the model itself says, (N,); empty without likelihood
    patients: np.ndarray  # (N,)
    held_out: np.ndarray  # (N,)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="prepared slices")
    parser.add_argument("--bundle", type=Path, help="an exported model; the shipped one by default")
    parser.add_argument("--slices", type=int, default=12, help="of each person, region and plane (default 12)")
    parser.add_argument("--likelihood", action="store_true", help="also how well every kind of slice explains an image")
    options = parser.parse_args()
    slices = read(options.folder, options.slices, read_bundle(find_bundle(options.bundle)), options.likelihood)
    for factor, labels in slices.labels.items():
        known = labels != ""
        patients, held_out, truth = slices.patients[known], slices.held_out[known], labels[known]
        print(f"\n{factor}: {known.sum()} slices of {len(set(patients))} patients, {held_out.sum()} of them held out")
        for name, values in slices.inputs.items():
            probe(name, values[known], truth, patients, held_out)
        if slices.said:
            print_row(
                "the model itself", "no fit", truth[held_out], slices.said[factor][known][held_out], patients[held_out]
            )


def probe(name: str, values: FloatArray, truth: np.ndarray, patients: np.ndarray, held_out: np.ndarray) -> None:
    """Two lines: fitted to the training patients, and to all but the one who is asked about."""
    learnt = ~held_out
    crossed = {c: left_out(values[learnt], truth[learnt], patients[learnt], c) for c in STRENGTHS}
    strength = max(STRENGTHS, key=lambda c: balanced(truth[learnt], crossed[c]))
    said = fit_of(values[learnt], strength).fit(values[learnt], truth[learnt]).predict(values[held_out])
    print_row(f"{name}, {values.shape[1]} numbers", f"C {strength:g}", truth[held_out], said, patients[held_out])
    said = left_out(values, truth, patients, strength)
    print_row("", "one patient left out", truth[held_out], said[held_out], patients[held_out])


def print_row(name: str, how: str, truth: np.ndarray, said: np.ndarray, patients: np.ndarray) -> None:
    """One line of the table."""
    found = estimate(lambda rows: balanced(truth[rows], said[rows]), patients.tolist(), draws=1000)
    classes = np.unique(truth)
    shares = recall_score(truth, said, labels=classes, average=None, zero_division=0)
    each = ", ".join(f"{label} {share:.2f}" for label, share in zip(classes, shares, strict=True))
    print(f"  {name:<40} {how:<20} {found.value:.3f} ({found.low:.2f} to {found.high:.2f})   {each}", flush=True)


def balanced(truth: np.ndarray, said: np.ndarray) -> float:
    """The mean over the classes that there are."""
    return float(recall_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0))


def left_out(values: FloatArray, truth: np.ndarray, patients: np.ndarray, strength: float) -> np.ndarray:
    """What is said of each person by a fit on the others."""
    said = np.empty_like(truth)
    for person in np.unique(patients):
        own = patients == person
        said[own] = fit_of(values[~own], strength).fit(values[~own], truth[~own]).predict(values[own])
    return said


def fit_of(values: FloatArray, strength: float) -> Pipeline:
    """The same for all: 200 principal components keep it fast and, with so few patients, do no harm."""
    return make_pipeline(
        StandardScaler(),
        PCA(min(200, values.shape[1], len(values) // 2), random_state=0),
        LogisticRegression(C=strength, max_iter=1000, class_weight="balanced", random_state=0),
    )


def read(folder: Path, most: int, bundle: Bundle, likelihood: bool) -> Slices:
    """Features and labels of all slices that are taken."""
    generator, conditions = Generator(OnnxBackend(bundle)), [slice_type.condition for slice_type in bundle.slice_types]
    dataset = SliceDataset(folder)
    table = dataset.columns("patient", "region", "plane").to_pydict()
    columns = {name: np.array([value or "" for value in values]) for name, values in table.items()}
    chosen = choose(columns, most)
    pixels, learnt, explained = [], [], []
    for first in range(0, len(chosen), BATCH):
        images = dataset.batch(chosen[first : first + BATCH])[:, 0]
        pixels.append(averaged(images[:, None], 32).reshape(len(images), -1))
        learnt.append(multiscale_features(generator, images))
        generator.cache.clear()
        if likelihood:
            explained.append(likelihood_features(generator, images, conditions))
    features = np.concatenate(learnt)
    info = generator.backend.info
    features = features[:, probe_columns(info, feature_names(info, features.shape[1]))]
    inputs, said = {"pixels": np.concatenate(pixels), "features": features}, {}
    columns = {name: values[chosen] for name, values in columns.items()}
    if likelihood:
        bits = np.concatenate(explained)
        inputs["features and likelihood"] = np.concatenate([features, bits], axis=1)
        best = bits.reshape(len(bits), len(conditions), -1).sum(axis=2).argmax(axis=1)
        said = {f: np.array([getattr(conditions[i], f) or "" for i in best]) for f in ("region", "plane")}
    held_out = np.array([dataset.manifest.split[patient] == "test" for patient in columns["patient"]])
    labels = {factor: columns[factor] for factor in ("region", "plane")}
    return Slices(inputs, labels, said, columns["patient"], held_out)


def choose(columns: dict[str, np.ndarray], most: int) -> np.ndarray:
    """At most so many slices of each person, region and plane, at random but always the same."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, group in enumerate(zip(*columns.values(), strict=True)):
        groups[group].append(i)
    rng = np.random.default_rng(0)
    return np.concatenate([np.sort(rng.permutation(group)[:most]) for group in groups.values()])


if __name__ == "__main__":
    main()
