"""Writes the weighted mean of two trained networks of the same form.

    python mean_weights.py FIRST.safetensors SECOND.safetensors SHARE OUT.safetensors

SHARE is the weight of the second network, from 0 to 1. If the second was trained further from the first, their mean can
be better than either on slices of held-out patients (compare arXiv 2109.01903). Labels that the second has learned in
addition are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medvar_engine.conditions import LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.pretrained import join_labels
from medvar_engine.models.weight_files import read_tensors, write_tensors


def main(arguments: list[str] | None = None) -> None:
    """Read two files, and write their mean with the configuration and the labels of the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        write_mean(options.first, options.second, options.share, options.out)
    except MedvarError as error:
        parser.error(str(error))


def write_mean(first_path: Path, second_path: Path, share: float, out: Path) -> None:
    """Write the mean of two files. Raises `MedvarError` for networks of different forms, and a share outside 0 to 1."""
    (first, about), (second, also) = read_tensors(first_path), read_tensors(second_path)
    if not _continues(json.loads(about["medvar"]), json.loads(also["medvar"])):
        raise MedvarError(f"{first_path} and {second_path} are networks of different forms, which have no mean.")
    known = {name: _known(tensor, first[name]) if name in first else tensor for name, tensor in second.items()}
    write_tensors(out, mean_weights(first, known, share), about)


def mean_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights ``(1 - share)·first + share·second``.

    Raises `MedvarError` for a share outside 0 to 1, and for weights of other names, shapes or types.
    """
    if not 0 <= share <= 1:
        raise MedvarError(f"The share of the second network must be 0 to 1, but is {share:g}.")
    forms = [{name: (one.shape, one.dtype) for name, one in network.items()} for network in (first, second)]
    if forms[0] != forms[1] or not all(one.is_floating_point() for one in first.values()):
        raise MedvarError("The two networks have different weights, so they have no mean.")
    return {name: torch.lerp(one, second[name], share) for name, one in first.items()}


def _continues(about: dict[str, Any], also: dict[str, Any]) -> bool:
    """Whether two networks have the same form, and the second knows the labels of the first, in the same order."""
    known, more = (LabelSpace.from_dict(values.pop("labels", {})) for values in (about, also))
    for values in (about, also):
        values["config"].pop("labels", None)  # their numbers
    return about == also and join_labels(known, more) == more


def _known(embedding: Tensor, like: Tensor) -> Tensor:
    """An embedding with the rows of known names and the last, unconditional one; other weights are unchanged."""
    return embedding if len(embedding) == len(like) else torch.cat((embedding[: len(like) - 1], embedding[-1:]))


if __name__ == "__main__":
    main()
