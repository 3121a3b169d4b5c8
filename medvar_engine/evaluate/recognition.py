"""Recognition: does a classifier, trained on real training slices, find the requested region and plane in images?

The classifier is a logistic regression on the features of all encoders, which is deterministic and trained in seconds.
Its accuracy on held-out slices is reported for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from medvar_engine.evaluate.metrics.bootstrap import estimate_mean
from medvar_engine.evaluate.metrics.metric_table import MetricValue, shown
from medvar_engine.types import FloatArray

PENALTY = 1e-2  # weight of the sum of squared weights
STEPS = 100  # largest number of L-BFGS steps
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Recognition:
    """Share of images in which the classifier finds the requested region and plane."""

    classes: tuple[str, ...]  # region and plane
    synthetic: MetricValue
    held_out: MetricValue  # slices of held-out patients
    by_class: dict[str, tuple[float | None, float | None]]  # synthetic, held out; None without images


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The images of one side of the comparison."""

    features: FloatArray  # (N, D)
    names: Sequence[str | None]  # class of each image; None without a class
    groups: Sequence[str]  # groups that are drawn together for intervals


def measure_recognition(training: Side, held_out: Side, synthetic: Side) -> Recognition | None:
    """The share of recognised images; None with fewer than two classes, or if no class was requested."""
    classes = sorted({name for name in training.names if name is not None})
    sides = {"images": _known(synthetic, classes), "held-out patients": _known(held_out, classes)}
    if len(classes) < 2 or any(not len(numbers) for _, numbers in sides.values()):
        return None
    kept, truth = _known(training, classes)
    weights = _fitted(training.features[kept], truth, len(classes))
    metrics, right = [], []
    for (over, (chosen, numbers)), side in zip(sides.items(), (synthetic, held_out), strict=True):
        found = _guesses(weights, side.features[chosen]) == numbers
        metrics.append(shown(estimate_mean(found.astype(np.float64), [side.groups[i] for i in chosen]), over))
        right.append([float(found[numbers == i].mean()) if (numbers == i).any() else None for i in range(len(classes))])
    by_class = dict(zip(classes, zip(*right, strict=True), strict=True))
    return Recognition(tuple(classes), metrics[0], metrics[1], by_class)


def _known(side: Side, classes: list[str]) -> tuple[Labels, Labels]:
    """The indices of images with one of the classes, and the number of the class of each."""
    place = {name: i for i, name in enumerate(classes)}
    chosen = np.array([i for i, name in enumerate(side.names) if name in place], dtype=np.int64)
    return chosen, np.array([place[side.names[i]] for i in chosen], dtype=np.int64)  # type: ignore[index]


def _fitted(features: FloatArray, truth: Labels, classes: int) -> tuple[Tensor, ...]:
    """Mean and deviation of every feature, weights ``(D, classes)`` and offsets of the fitted classifier.

    A class has a weight of the square root of its number of images, a compromise between common and rare classes.
    """
    x, y = torch.from_numpy(np.array(features, dtype=np.float32)), torch.from_numpy(truth)
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - mean) / deviation
    share = y.bincount(minlength=classes).clamp(min=1).float().rsqrt()
    weights = torch.zeros(x.shape[1], classes, requires_grad=True)
    offsets = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, offsets], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weights + offsets, y, weight=share) + PENALTY * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return mean, deviation, weights.detach(), offsets.detach()


def _guesses(fitted: tuple[Tensor, ...], features: FloatArray) -> Labels:
    mean, deviation, weights, offsets = fitted
    x = (torch.from_numpy(np.array(features, dtype=np.float32)) - mean) / deviation
    guesses: Labels = (x @ weights + offsets).argmax(1).numpy()
    return guesses
