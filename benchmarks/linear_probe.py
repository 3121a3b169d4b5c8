"""What do a model's features know of slices of people it has never seen?

    python benchmarks/linear_probe.py SLICES [--bundle FOLDER] [--slices 16]

SLICES is a folder that `medvar prepare` wrote. A logistic regression on the features (and, to compare with, on the
pixels, averaged to 32×32) is tried in two ways: by cross-validation in five parts of all people, so that none is in
two parts; and trained on the training people and tried on those held out from the model itself. ``--slices`` bounds
how many are taken of each person, region and plane. Prints balanced accuracy: the mean over classes. The strength of
the fit is the best of three, for both alike. Of few people these are rough figures, and the model has seen the
training people's slices, though features are read under no condition. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from medvar_engine.arrays import FloatArray
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle import find_bundle, read_bundle
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.features import averaged, feature_names, multiscale_features, probe_columns
from medvar_engine.generator import Generator

BATCH = 16
PARTS = 5
STRENGTHS = (1e-3, 1e-2, 1e-1)


class Slices(NamedTuple):
    """What is told apart, by what, and whose it is."""

    inputs: dict[str, FloatArray]  # name → (N, D)
    labels: dict[str, np.ndarray]  # factor → (N,)
    patients: np.ndarray  # (N,)
    held_out: np.ndarray  # (N,)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="prepared slices")
    parser.add_argument("--bundle", type=Path, help="an exported model; the shipped one by default")
    parser.add_argument("--slices", type=int, default=16, help="of each person, region and plane (default 16)")
    options = parser.parse_args()
    slices = read(options.folder, options.slices, Generator(OnnxBackend(read_bundle(find_bundle(options.bundle)))))
    for factor, labels in slices.labels.items():
        known = labels != ""
        people, held_out, truth = slices.patients[known], slices.held_out[known], labels[known]
        print(f"\n{factor}: {known.sum()} slices of {len(set(people))} people, {held_out.sum()} of them held out")
        for name, values in slices.inputs.items():
            values = values[known]
            crossed = max(cross_validated(values, truth, people, strength) for strength in STRENGTHS)
            apart = max(
                score(values[~held_out], truth[~held_out], values[held_out], truth[held_out], strength)
                for strength in STRENGTHS
            )
            print(
                f"  {name:<9} {values.shape[1]:>5} numbers   by cross-validation {crossed:.3f}   held out {apart:.3f}"
            )


def cross_validated(values: FloatArray, truth: np.ndarray, people: np.ndarray, strength: float) -> float:
    """Balanced accuracy of what is said of each part by a fit on the others."""
    said = cross_val_predict(fit_of(values, strength), values, truth, groups=people, cv=GroupKFold(PARTS))
    return float(balanced_accuracy_score(truth, said))


def score(values: FloatArray, truth: np.ndarray, new: FloatArray, new_truth: np.ndarray, strength: float) -> float:
    """Balanced accuracy on other people."""
    return float(balanced_accuracy_score(new_truth, fit_of(values, strength).fit(values, truth).predict(new)))


def fit_of(values: FloatArray, strength: float) -> Pipeline:
    """The same for all: 200 principal components keep it fast and, with so few people, do no harm."""
    return make_pipeline(
        StandardScaler(),
        PCA(min(200, values.shape[1], len(values) // 2), random_state=0),
        LogisticRegression(C=strength, max_iter=200, class_weight="balanced", random_state=0),
    )


def read(folder: Path, most: int, generator: Generator) -> Slices:
    """Features and labels of all slices that are taken."""
    dataset = SliceDataset(folder)
    table = dataset.columns("patient", "region", "plane").to_pydict()
    columns = {name: np.array([value or "" for value in values]) for name, values in table.items()}
    chosen = choose(columns, most)
    pixels, learnt = [], []
    for first in range(0, len(chosen), BATCH):
        images = dataset.batch(chosen[first : first + BATCH])[:, 0]
        pixels.append(averaged(images[:, None], 32).reshape(len(images), -1))
        learnt.append(multiscale_features(generator, images))
        generator.cache.clear()
    features = np.concatenate(learnt)
    info = generator.backend.info
    features = features[:, probe_columns(info, feature_names(info, features.shape[1]))]
    columns = {name: values[chosen] for name, values in columns.items()}
    held_out = np.array([dataset.manifest.split[patient] == "test" for patient in columns["patient"]])
    labels = {factor: columns[factor] for factor in ("region", "plane")}
    return Slices({"pixels": np.concatenate(pixels), "features": features}, labels, columns["patient"], held_out)


def choose(columns: dict[str, np.ndarray], most: int) -> np.ndarray:
    """At most so many slices of each person, region and plane, at random but always the same."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, group in enumerate(zip(*columns.values(), strict=True)):
        groups[group].append(i)
    rng = np.random.default_rng(0)
    return np.concatenate([np.sort(rng.permutation(group)[:most]) for group in groups.values()])


if __name__ == "__main__":
    main()
