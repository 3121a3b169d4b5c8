"""Writes the weighted mean of two trained networks of the same form.

    python mean_weights.py FIRST.safetensors SECOND.safetensors SHARE OUT.safetensors

SHARE is the weight of the second network, from 0 to 1. If the second was trained further from the first, their mean can
be better than either on slices of held-out patients (compare arXiv 2109.01903).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from medvar_engine.errors import MedvarError
from medvar_engine.models.weight_files import read_tensors, write_tensors


def main(arguments: list[str] | None = None) -> None:
    """Read two files, and write their mean with the configuration of the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    (first, about), (second, also) = read_tensors(options.first), read_tensors(options.second)
    if about != also:
        raise MedvarError(f"{options.first} and {options.second} are networks of different forms, which have no mean.")
    write_tensors(options.out, mean_weights(first, second, options.share), about)


def mean_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights ``(1 - share)·first + share·second``.

    Raises `MedvarError` for a share outside 0 to 1, and for weights of other names or shapes.
    """
    if not 0 <= share <= 1:
        raise MedvarError(f"The share of the second network must be 0 to 1, but is {share:g}.")
    if {name: one.shape for name, one in first.items()} != {name: one.shape for name, one in second.items()}:
        raise MedvarError("The two networks have different weights, so they have no mean.")
    return {
        name: torch.lerp(one, second[name], share) if one.is_floating_point() else one for name, one in first.items()
    }


if __name__ == "__main__":
    main()
