"""Selection of the slices of a batch, in which rare slice types are drawn more often than their frequency."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards.tally import distinct_rows
from medvar_engine.errors import MedvarError
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.config_sections import DataSettings
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.stage import Batch, Batches

SLICE_TYPE = ("modality", "region", "plane")


class BalancedSampler:
    """Draws indices of slices with replacement. A slice type is a combination of modality, region and plane.

    With ``patient_balance`` 0 every slice counts the same, with 1 every patient of a slice type does. A slice type
    counts as much as its slices together; with ``balance`` 0 its share is in proportion to that, with 1 all slice types
    have the same share. Then no slice may count more than ``most_repeats`` times as much as an average slice of the
    slice type in which that average is lowest. Slices outside the ``central`` share of their scan are not drawn; those
    with an unknown position are.
    """

    def __init__(self, slices: SliceDataset, settings: DataSettings) -> None:
        table = slices.columns(*SLICE_TYPE, "patient", "position")
        outside = np.abs(table["position"].to_numpy() - 0.5) > settings.central / 2  # False if it is unknown
        self._chosen = np.flatnonzero(~outside)
        if not len(self._chosen):
            raise MedvarError(
                f"No slice of {slices.folder} is in the central {settings.central:.0%} of its scan. "
                "Choose a larger value of central."
            )
        table = table.take(self._chosen)
        slice_type, patient = (distinct_rows(table, names)[1] for names in (SLICE_TYPE, (*SLICE_TYPE, "patient")))
        weights = np.bincount(patient)[patient] ** -float(settings.patient_balance)
        weights *= np.bincount(slice_type, weights)[slice_type] ** -settings.balance
        averages = np.bincount(slice_type, weights) / np.bincount(slice_type)
        weights = np.minimum(weights, settings.most_repeats * averages.min())
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """``count`` random indices."""
        index = np.searchsorted(self._cumulative, rng.random(count), side="right")
        chosen: npt.NDArray[np.int64] = self._chosen[np.minimum(index, len(self._chosen) - 1)]
        return chosen


@dataclass(frozen=True)
class BatchDraw:
    """The slices of each step, as a function of seed, step and micro-batch, which every process can compute.

    The micro-batches of a step divide its slices, and its ``further`` slices, which come after the others in every
    micro-batch. Other random choices of a step are the same in all its micro-batches.
    """

    sampler: BalancedSampler
    batch_size: int
    parts: int
    seed: int
    further: int = 0  # number of further slices of a step, from which a stage learns something else

    def __call__(self, step: int, part: int) -> tuple[npt.NDArray[np.int64], np.random.Generator]:
        """The indices of the slices of micro-batch ``part``, and the random generator for other choices of the step."""
        rng = np.random.default_rng((self.seed, step))
        index = self.sampler.draw(self.batch_size + self.further, rng)
        return index[self.share(part)], rng

    def share(self, part: int) -> npt.NDArray[np.int64]:
        """Which of a step's slices belong to micro-batch ``part``."""
        numbers = np.arange(self.batch_size + self.further)
        groups = np.split(numbers, [self.batch_size])
        return np.concatenate([group.reshape(self.parts, -1)[part] for group in groups])


def batch_draw(slices: SliceDataset, config: TrainConfig, processes: Processes, further: int = 0) -> BatchDraw:
    """The `BatchDraw` of a run. Raises `MedvarError` when a batch cannot be divided evenly."""
    parts = processes.size * config.accumulate
    for name, count in (("batch_size", config.batch_size), ("coarse_slices", further)):
        if count % parts:
            raise MedvarError(
                f"{name} {count} cannot be divided evenly among {processes.size} processes × "
                f"{config.accumulate} micro-batches (accumulate). Make it a multiple of {parts}."
            )
    return BatchDraw(BalancedSampler(slices, config), config.batch_size, parts, config.seed, further)


@contextmanager
def read_ahead(
    batches: Batches, steps: range, parts: Sequence[int], workers: int, device: torch.device
) -> Iterator[Iterator[Batch]]:
    """The micro-batches ``parts`` of each step on ``device``, read in advance by ``workers`` other processes."""
    loader: DataLoader[Any] = DataLoader(
        batches,  # type: ignore[arg-type]  # torch expects its own base class
        sampler=((step, part) for step in steps for part in parts),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_run,
        pin_memory=device.type == "cuda",
        # A forked copy of a process with threads can hang; a new process opens the files itself.
        multiprocessing_context="spawn" if workers else None,
    )
    iterator = iter(loader)
    try:
        yield (
            tuple(tensor.to(device, non_blocking=True) for tensor in batch) for batch in _with_named_errors(iterator)
        )
    finally:
        if workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # otherwise they run until the main process ends


def _with_named_errors(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; raises `MedvarError` with advice when a process that reads them has ended."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise MedvarError(
                "A process that reads slices for the training was killed, perhaps by the system for lack of memory. "
                "Free some memory, or set fewer workers, and continue from the last checkpoint with --resume."
            ) from error
        yield batch


def _leave_signals_to_the_run(_: int) -> None:
    """Ignore stop signals, which a scheduler sends to all processes; only the training process handles them."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def in_hounsfield(data: SliceDataset, index: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each of the slices ``index`` is CT, with values in Hounsfield units: ``(B,)``."""
    is_ct = np.array([condition.modality == "CT" for condition in data.conditions.distinct])
    chosen: npt.NDArray[np.bool_] = is_ct[data.conditions.codes[index]]
    return chosen


def check_size(data: SliceDataset, image_size: int) -> None:
    """Raises `MedvarError` when slices do not have the image size of the model."""
    if data.size != image_size:
        raise MedvarError(
            f"{data.folder} holds slices of {data.size}×{data.size} pixels, but the model needs "
            f"{image_size}×{image_size}. Prepare the data again with that size, or choose another preset."
        )


def spread(total: int, count: int) -> npt.NDArray[np.int64]:
    """At most ``count`` evenly spaced indices below ``total``."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
