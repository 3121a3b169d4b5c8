"""Starts training from a trained transformer: known conditions keep their embeddings, and new names are added."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from medvar_engine.conditions import NAMED, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.lora import adapt
from medvar_engine.models.resolution_tokenizer import ResolutionConfig
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_transformer


def join_labels(base: LabelSpace, new: LabelSpace) -> LabelSpace:
    """All names of both label spaces: those of ``base`` first and in order, so that their numbers stay the same.

    The number of position steps is that of ``base``.
    """
    names = {name: tuple(dict.fromkeys(getattr(base, name) + getattr(new, name))) for name in NAMED}
    return LabelSpace(**names, position=base.position or new.position)


def start_transformer(
    base: Transformer, base_labels: LabelSpace, labels: LabelSpace, rank: int, *, dropout: float | None = None
) -> Transformer:
    """A transformer over `join_labels` that computes the same as ``base``.

    ``rank`` is that of low-rank changes; see `medvar_engine.models.lora`.
    Names of ``base`` and the unconditional row keep their embeddings; new names start from the mean of the known ones.
    A factor that ``base`` does not have starts at zero. With ``rank`` 0 all weights are trained. ``dropout`` None keeps
    that of ``base``. Raises `MedvarError` when ``base_labels`` do not belong to ``base``.
    """
    if base_labels.sizes != base.config.labels:
        raise MedvarError(
            f"The transformer to start from has conditions of {base.config.labels} names, but its label space has "
            f"{base_labels.sizes}. Get the file from its source again."
        )
    joined = join_labels(base_labels, labels)
    known = {name: base.get_parameter(f"labels.{i}.weight") for i, name in enumerate(base_labels.factors)}
    config = dataclasses.replace(
        base.config, labels=joined.sizes, dropout=base.config.dropout if dropout is None else dropout
    )
    width = config.width
    state = {name: tensor for name, tensor in base.state_dict().items() if not name.startswith("labels.")}
    for i, (name, size) in enumerate(zip(joined.factors, joined.sizes, strict=True)):
        state[f"labels.{i}.weight"] = _embedding(known.get(name), size, width)
    with torch.device("meta"):  # no initialisation, because all weights are set below
        model = Transformer(config)
    model.load_state_dict({name: tensor.detach().clone() for name, tensor in state.items()}, assign=True)
    model.requires_grad_(True)
    return adapt(model, rank, _new_rows(base_labels, joined)) if rank else model


def check_tokenizer(base: Transformer, tokenizer: TokenizerConfig | ResolutionConfig, names: tuple[str, str]) -> None:
    """Raise `MedvarError` unless ``base`` fits the tokenizer. ``names`` are the names of both for the message."""
    for part, own, what in (
        ("schedule", "schedule", "sides of the token maps"),
        ("vocabulary", "vocabulary", "number of codes"),
        ("latent_channels", "feature_channels", "channels of the scale features"),
    ):
        needed, found = getattr(base.config, part), getattr(tokenizer, own)
        if needed != found:
            raise MedvarError(
                f"{names[0]} was not trained on tokens of {names[1]}: its {what} is {needed}, the tokenizer's {found}. "
                "It needs the tokenizer that it was trained with, or a copy of which only the decoder was "
                "trained further."
            )


def load_guide(path: Path, tokenizer: TokenizerConfig | ResolutionConfig, name: str, labels: LabelSpace) -> Transformer:
    """A weaker transformer for guidance, over ``labels``; ``name`` is that of the tokenizer, for messages.

    It may lack some names of ``labels``, as the guide of a fine-tuned model does, because only its unconditional rows
    are used. Raises `MedvarError` if it was trained on other tokens, or has names that ``labels`` lack.
    """
    guide, own = load_transformer(path)
    check_tokenizer(guide, tokenizer, (str(path), name))
    if join_labels(own, labels) != labels:
        raise MedvarError(
            f"The guide {path} was trained with other conditions than the model. Train it on the same slices, with the "
            "same factors."
        )
    return start_transformer(guide, own, labels, rank=0).eval()


def _embedding(known: Tensor | None, size: int, width: int) -> Tensor:
    """``(size + 1, width)`` with the rows of ``known`` (names, then the unconditional class)."""
    if known is None:
        return torch.zeros(size + 1, width)
    names, unconditional = known[:-1], known[-1:]
    new = names.mean(0, keepdim=True).expand(size - len(names), -1)
    return torch.cat((names, new, unconditional))


def _new_rows(base: LabelSpace, joined: LabelSpace) -> list[list[int]]:
    """For each factor, the rows of its embedding that are not in ``base``."""
    rows = []
    for name, size in zip(joined.factors, joined.sizes, strict=True):
        begin = base.size(name)
        rows.append(list(range(begin, size)) if begin else list(range(size + 1)))
    return rows
