"""Adds blocks to a trained transformer, which change nothing until they are trained.

    python add_blocks.py TRANSFORMER.safetensors COUNT OUT.safetensors

Each new block is a copy of the block before it. In the copy, the last layers of attention and MLP are set to zero, so
that the network computes the same as before. The new blocks are spread evenly over the depth.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from medvar_engine.errors import MedvarError
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_transformer, save_transformer

LAST_LAYERS = ("attention.proj.", "mlp.2.")


def deeper(base: Transformer, count: int) -> Transformer:
    """The transformer ``base`` with ``count`` additional blocks, at most one after each of its own.

    Raises `MedvarError` for another count.
    """
    depth = base.config.depth
    if not 0 < count <= depth:
        raise MedvarError(f"From 1 to {depth} blocks can be added to {depth} blocks, not {count}.")
    followed = {(i + 1) * depth // count - 1 for i in range(count)}
    blocks: list[dict[str, Tensor]] = []
    for i, block in enumerate(base.blocks):
        own = block.state_dict()
        blocks.append(own)
        if i in followed:
            blocks.append({name: torch.zeros_like(w) if name.startswith(LAST_LAYERS) else w for name, w in own.items()})
    state = {name: value for name, value in base.state_dict().items() if not name.startswith("blocks.")}
    for number, own in enumerate(blocks):
        state |= {f"blocks.{number}.{name}": value for name, value in own.items()}
    model = Transformer(replace(base.config, depth=len(blocks)))
    model.load_state_dict(state)
    return model


def main(arguments: list[str] | None = None) -> None:
    """Read the arguments, and write the deeper transformer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transformer", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        base, labels = load_transformer(options.transformer)
        save_transformer(options.out, deeper(base, options.count), labels)
    except MedvarError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
