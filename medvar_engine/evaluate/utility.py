"""Utility: classifiers are trained on real, synthetic, or both kinds of images, and tested on held-out patients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.image_source import Images, PreparedImages
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.synthetic_images import Synthetic
from medvar_engine.evaluate.learning_curve import (
    SYNTHETIC,
    CurvePoint,
    Progress,
    learn_from_each,
    patient_counts,
    report_step,
    rows_of_patients,
)
from medvar_engine.evaluate.metrics.bootstrap import estimate
from medvar_engine.evaluate.metrics.metric_table import MetricValue, shown
from medvar_engine.train.augment import augment
from medvar_engine.types import FloatArray

SIDE, BATCH, LEARNING_RATE = 64, 32, 1e-3
TASKS = ("region", "plane", "modality")

Labels = npt.NDArray[np.int64]
LabelledImages = tuple[Images, Labels]
"""Images, and the number of the class of each; -1 without a class."""


@dataclass(frozen=True, slots=True)
class Utility:
    """Accuracy of classifiers of ``task`` on held-out patients, by their training images."""

    task: str
    classes: tuple[str, ...]
    steps: int  # training steps of each classifier
    seeds: int  # number of classifiers that are averaged
    accuracy: dict[str, MetricValue]  # balanced accuracy by training images: "real", "real and synthetic", "synthetic"
    curve: tuple[CurvePoint, ...] = ()  # for fewer patients of each class, up to all; empty if not requested

    @property
    def metrics(self) -> dict[str, MetricValue]:
        """The metric by training images."""
        return self.accuracy


def classes_of(task: str, training: SliceDataset, held_out: SliceDataset) -> list[str]:
    """The classes of a task.

    Raises `MedvarError` for a task that is not in `TASKS`, or if fewer than two classes occur both in the training set
    and among held-out slices.
    """
    if task not in TASKS:
        raise MedvarError(f"The task must be one of {', '.join(TASKS)}, not {task!r}.")
    real, test = ({getattr(condition, task) for condition in data.conditions.distinct} for data in (training, held_out))
    names = sorted((real & test) - {None})
    if len(names) < 2:
        raise MedvarError(
            f"To classify {task}, at least two classes must occur both in the training set and among held-out slices."
        )
    return names


def measure_utility(
    synthetic: Synthetic,
    data: Path,
    task: str = "region",
    *,
    steps: int = 300,
    seeds: int = 3,
    patients: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Utility:
    """Balanced accuracy on slices of held-out patients, with an interval over patients.

    It is the mean over classifiers with several seeds and the same number of steps. With ``patients`` classifiers are
    also trained on fewer patients of each class: on these numbers or, if it is empty, on 1, 2, 4 …. Every seed draws
    other patients. Raises `MedvarError` as `classes_of` does, when no synthetic image belongs to a class, and for more
    patients than the class with most has.
    """
    training, held_out = SliceDataset(data, "train"), SliceDataset(data, "test")
    names = classes_of(task, training, held_out)
    real, test, made = (
        [getattr(condition, task) for condition in conditions]
        for conditions in (list(training.conditions), list(held_out.conditions), list(synthetic.conditions))
    )
    of_made = _numbers(made, names)
    if not (of_made >= 0).any():
        raise MedvarError(f"None of the synthetic images shows a {task} that occurs among held-out slices.")
    of_real, patient_of_row = _numbers(real, names), [row.patient for row in training.rows]
    most = max(len({patient_of_row[i] for i in np.flatnonzero(of_real == one)}) for one in range(len(names)))
    counts = (most,) if patients is None else patient_counts(most, patients)
    truth = _numbers(test, names)
    kept = np.flatnonzero(truth >= 0)
    people = [held_out.rows[int(i)].patient for i in kept]
    images = PreparedImages(training)

    def measured(what: str, parts: Callable[[int], list[LabelledImages]]) -> MetricValue:
        reported = functools.partial(report_step, progress, what, steps)
        trained = (_trained(parts(seed), len(names), steps, seed, reported) for seed in range(seeds))
        guesses = [_guesses(network, held_out, kept) for network in trained]

        def accuracy(index: npt.NDArray[np.int64]) -> float:
            return float(np.mean([_balanced(truth[kept][index], one[index]) for one in guesses]))

        return shown(estimate(accuracy, people), "held-out patients")

    def some(count: int, seed: int) -> LabelledImages:
        return images, np.where(_of_patients(of_real, patient_of_row, count, seed), of_real, -1)

    points = learn_from_each(measured, some, (synthetic.images, of_made), counts, "of a class")
    alone = measured(SYNTHETIC, lambda _: [(synthetic.images, of_made)])
    curve = () if patients is None else points
    return Utility(task, tuple(names), steps, seeds, {**points[-1].metrics, SYNTHETIC: alone}, curve)


def _of_patients(labels: Labels, patients: Sequence[str], count: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which slices belong to ``count`` random patients of each class."""
    chosen = np.zeros(len(labels), dtype=bool)
    for one in np.unique(labels[labels >= 0]):
        own = np.flatnonzero(labels == one)
        chosen[own[rows_of_patients([patients[int(i)] for i in own], count, seed)]] = True
    return chosen


def _numbers(values: list[str | None], names: list[str]) -> Labels:
    """The index of each value in ``names``; -1 for other values."""
    return np.array([names.index(value) if value in names else -1 for value in values], dtype=np.int64)


def _balanced(truth: Labels, guesses: Labels) -> float:
    """Balanced accuracy: the mean over classes of the share of correct guesses."""
    return float(np.mean([(guesses[truth == one] == one).mean() for one in np.unique(truth)]))


def _trained(
    parts: list[LabelledImages], classes: int, steps: int, seed: int, report: Callable[[int], None]
) -> nn.Module:
    """Train a classifier; all ``parts``, and all classes of a part, contribute equally many images to a batch."""
    torch.manual_seed(seed)
    network = _network(classes).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    usable = [(images, labels) for images, labels in parts if (labels >= 0).any()]
    for step in range(steps):
        drawn = [_draw(images, labels, BATCH // len(usable), rng) for images, labels in usable]
        images = torch.cat([_small(one) for one, _ in drawn])
        labels = torch.from_numpy(np.concatenate([one for _, one in drawn]))
        loss = F.cross_entropy(network(augment(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step + 1)
    return network.eval()


def _draw(images: Images, labels: Labels, count: int, rng: np.random.Generator) -> tuple[FloatArray, Labels]:
    classes = np.unique(labels[labels >= 0])
    chosen = np.array([rng.choice(np.flatnonzero(labels == one)) for one in rng.choice(classes, count)])
    return images.batch(chosen), labels[chosen]


@torch.no_grad()
def _guesses(network: nn.Module, data: SliceDataset, numbers: npt.NDArray[np.int64]) -> Labels:
    parts = [
        network(_small(data.batch(part)[:, 0])).argmax(1) for part in np.array_split(numbers, -(-len(numbers) // 64))
    ]
    guesses: Labels = torch.cat(parts).numpy()
    return guesses


def _small(images: FloatArray) -> Tensor:
    """Images ``(B, H, W)`` reduced to ``(B, 1, 64, 64)``."""
    return F.interpolate(torch.from_numpy(images)[:, None], size=(SIDE, SIDE), mode="area")


def _network(classes: int) -> nn.Sequential:
    stages: list[nn.Module] = []
    before = 1
    for channels in (16, 32, 64):
        stages += [nn.Conv2d(before, channels, 3, stride=2, padding=1), nn.GroupNorm(8, channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
