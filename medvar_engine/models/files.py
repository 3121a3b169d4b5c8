"""Models as single safetensors files that say themselves what they are; written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medvar_engine.conditions import LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig

_Model = TypeVar("_Model", bound=torch.nn.Module)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``path`` through a temporary name beside it, so that it is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Shared or strided tensors are not storable; contiguous copies are.
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(copies, temporary, dict(metadata) if metadata else None)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MedvarError(f"Cannot write {path}: {reason}. Nothing was left half-written.") from error
    finally:
        with suppress(OSError):  # also when a folder in the path is a file
            temporary.unlink()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises `MedvarError` when it is none, or cut short."""
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned, for safetensors gives views of the mapped file, which Windows could then not replace or delete.
            tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise MedvarError(f"There is no file {path}.") from error
    except (SafetensorError, OSError) as error:
        reason = f"{path} is not a whole safetensors file ({error}). Take it from its source again."
        raise MedvarError(reason) from error


def save_tokenizer(path: Path, model: Tokenizer) -> None:
    """Write a tokenizer and its configuration."""
    write_tensors(path, model.state_dict(), _metadata("tokenizer", config=dataclasses.asdict(model.config)))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote, in eval mode."""
    tensors, values = _read(path, "tokenizer")
    return _fill(path, tensors, lambda: Tokenizer(TokenizerConfig(**_tuples(values["config"]))))


def save_transformer(path: Path, model: Transformer, labels: LabelSpace) -> None:
    """Write a transformer, its configuration and the names of its conditions."""
    metadata = _metadata("transformer", config=dataclasses.asdict(model.config), labels=labels.to_dict())
    write_tensors(path, model.state_dict(), metadata)


def load_transformer(path: Path) -> tuple[Transformer, LabelSpace]:
    """Read what `save_transformer` wrote, in eval mode."""
    tensors, values = _read(path, "transformer")
    model = _fill(path, tensors, lambda: Transformer(TransformerConfig(**_tuples(values["config"]))))
    return model, LabelSpace.from_dict(values["labels"])


def _metadata(kind: str, **values: Any) -> dict[str, str]:
    return {"medvar": json.dumps({"kind": kind, **values})}


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = read_tensors(path)
    try:
        values = json.loads(metadata["medvar"])
        found = values["kind"]
    except (KeyError, ValueError, TypeError) as error:
        reason = f"{path} was not written by medvar: it lacks the 'medvar' metadata. Import it first."
        raise MedvarError(reason) from error
    if found != kind:
        raise MedvarError(f"{path} holds a {found}, but a {kind} is needed here.")
    return tensors, values


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _fill(path: Path, tensors: Mapping[str, Tensor], build: Callable[[], _Model]) -> _Model:
    """The model that ``build`` makes, with ``tensors`` as its weights, in eval mode."""
    try:
        with torch.device("meta"):  # the weights are read already: initialising others first would only take time
            model = build()
        model.load_state_dict(dict(tensors), assign=True)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise MedvarError(f"The weights in {path} do not fit its own configuration: {error}") from error
    return model.eval()
