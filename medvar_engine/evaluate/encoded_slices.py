"""Encodes real slices by a model; a model of pairs also encodes their masks."""

from __future__ import annotations

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.image_source import Indices
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.masks.structures import Structures
from medvar_engine.request import Request, Sampling


def encoded_slices(
    generator: Generator, data: SliceDataset, chosen: Indices, sampling: Sampling | None = None
) -> Generation:
    """The token pyramids of ``chosen`` slices, each under its own condition as far as the model knows it."""
    known = generator.backend.info.labels
    sampling = sampling or Sampling()
    requests = [Request(known.known(data.conditions[int(i)]), int(i), sampling) for i in chosen]
    masks = data.masks([int(i) for i in chosen]) if generator.backend.info.structures else None
    return generator.encode(data.batch([int(i) for i in chosen])[:, 0], requests, masks)


def check_structures(structures: Structures, data: SliceDataset, name: str) -> None:
    """Raise `MedvarError` unless the masks of ``data`` show the ``structures`` that ``name`` makes, in this order."""
    ours, theirs = (tuple(one.name for one in side) for side in (structures, data.structures))
    if not theirs:
        raise MedvarError(
            f"{name} makes masks of {', '.join(ours)}, but the slices in {data.folder} have none. Prepare them with "
            "--masks."
        )
    if ours != theirs:
        raise MedvarError(
            f"{name} makes masks of {', '.join(ours)}, but those in {data.folder} show {', '.join(theirs)}. Compare "
            "masks of the same structures, in the same order."
        )
