"""Saves and loads models as safetensors files with kind and configuration in their metadata, written atomically."""

from __future__ import annotations

import dataclasses
import hashlib
import json
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
from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.preview_decoder import PreviewConfig, PreviewDecoder
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.storage import check_regular, create_file, take_name, temporary_of
from medvar_engine.tokens.codebook import codebook_digest
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json

_OF_MASKS = ("structures", "colours", "mask_scales", "mask_channels")
RESOLUTION = "resolution tokenizer"  # the kind in the metadata of a `ResolutionTokenizer`
_MOST_TENSORS = 20_000  # the deepest transformer has some hundred
_LONGEST_HEADER = 10**8  # bytes, the limit of safetensors
_Model = TypeVar("_Model", bound=torch.nn.Module)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file in one step. Raises `MedvarError` if that fails; an existing file then stays."""
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Shared or strided tensors cannot be stored; contiguous copies can.
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        create_file(temporary).close()  # so that an existing link is not followed
        save_file(copies, temporary, dict(metadata) if metadata else None)
        take_name(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MedvarError(f"Cannot write {path}: {reason}. No incomplete file was left.") from error
    finally:
        with suppress(OSError):  # raised also if a folder in the path is a file
            temporary.unlink()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file. Raises `MedvarError` if it is damaged or no such file."""
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            # Cloned, because safetensors returns views of the mapped file, which Windows then cannot replace or delete.
            tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise MedvarError(f"There is no file {path}.") from error
    except Exception as error:  # e.g. an unknown dtype or an impossible shape
        reason = f"{path} is not a complete safetensors file ({error}). Get it from its source again."
        raise MedvarError(reason) from error


def _check_header(path: Path) -> None:
    """Raise `ValueError` for no regular file, and if the header of one lists more tensors than any model has."""
    check_regular(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensors = file.read(min(length, _LONGEST_HEADER)).count(b'"dtype"')
    if tensors > _MOST_TENSORS:
        raise ValueError(f"it has {tensors} tensors, and at most {_MOST_TENSORS} are read")


def save_tokenizer(path: Path, model: AnyTokenizer) -> None:
    """Write a tokenizer of either kind and its configuration."""
    kind = RESOLUTION if isinstance(model, ResolutionTokenizer) else "tokenizer"
    config = dataclasses.asdict(model.config)
    if (
        isinstance(model, ResolutionTokenizer) and not model.config.structures
    ):  # the format of files before masks were supported
        config = {name: value for name, value in config.items() if name not in _OF_MASKS}
    write_tensors(path, model.state_dict(), _metadata(kind, config=config))


def load_tokenizer(path: Path) -> AnyTokenizer:
    """Read a file of `save_tokenizer`; the model is in eval mode. Raises `MedvarError` for other files."""
    tensors, values = _read(path, "tokenizer", RESOLUTION)

    def build() -> AnyTokenizer:
        config = _tuples(values["config"])
        if values["kind"] == RESOLUTION:
            return ResolutionTokenizer(ResolutionConfig(**config))
        return Tokenizer(TokenizerConfig(**config))

    return _fill(path, tensors, build)


def tokenizer_kind(path: Path) -> str:
    """The kind of tokenizer in a file: ``"tokenizer"`` or `RESOLUTION`."""
    return str(_read(path, "tokenizer", RESOLUTION)[1]["kind"])


def tokenizer_digest(model: AnyTokenizer) -> str:
    """The sha256 of all weights of a tokenizer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_preview(path: Path, model: PreviewDecoder, codebook: str, tokenizer: str | None = None) -> None:
    """Write a light decoder, with the digests of the codebook and the tokenizer that it was trained for."""
    metadata = _metadata(
        "preview decoder", config=dataclasses.asdict(model.config), codebook=codebook, tokenizer=tokenizer
    )
    write_tensors(path, model.state_dict(), metadata)


def load_preview(path: Path) -> tuple[PreviewDecoder, str]:
    """Read a file of `save_preview`: the light decoder in eval mode, and the digest of its codebook."""
    tensors, values = _read(path, "preview decoder")
    model = _fill(path, tensors, lambda: PreviewDecoder(PreviewConfig(**values["config"])))
    return model, str(values.get("codebook"))


def load_preview_of(path: Path, tokenizer: AnyTokenizer, owner: str) -> PreviewDecoder:
    """Read the light decoder for exactly this tokenizer, which was read from ``owner``.

    Raises `MedvarError` when it was trained for another tokenizer, even for one with the same codebook: a decoder that
    was trained further with a frozen codebook decodes the same latents differently.
    """
    model = load_preview_for(path, tokenizer.quantizer.codes, owner)
    trained_for = _read(path, "preview decoder")[1].get("tokenizer")
    if trained_for is not None and trained_for != tokenizer_digest(tokenizer):
        raise MedvarError(
            f"{path} was not trained for the tokenizer of {owner}: the codebooks are equal, but not the other weights. "
            "Train a light decoder with stage=preview and that tokenizer."
        )
    return model


def load_preview_for(path: Path, codebook: FloatArray | None, owner: str) -> PreviewDecoder:
    """Read the light decoder for the tokenizer of ``owner``, with ``codebook`` ``(V, C)``.

    Raises `MedvarError` when it was trained for another tokenizer, or when that cannot be checked.
    """
    model, trained_for = load_preview(path)
    if codebook is None:
        raise MedvarError(
            f"{owner} has no codebook, so whether {path} fits cannot be checked. Export that model again."
        )
    if trained_for != codebook_digest(codebook):
        raise MedvarError(
            f"{path} was not trained for the tokenizer of {owner}: the codebooks differ. Train a light decoder with "
            "stage=preview and that tokenizer."
        )
    return model


def save_transformer(path: Path, model: Transformer, labels: LabelSpace) -> None:
    """Write a transformer, its configuration and the names of its conditions."""
    metadata = _metadata("transformer", config=dataclasses.asdict(model.config), labels=labels.to_dict())
    write_tensors(path, model.state_dict(), metadata)


def load_transformer(path: Path) -> tuple[Transformer, LabelSpace]:
    """Read a file of `save_transformer`; the model is in eval mode. Raises `MedvarError` for other files."""
    tensors, values = _read(path, "transformer")
    model = _fill(path, tensors, lambda: Transformer(TransformerConfig(**_tuples(values["config"]))))
    try:
        return model, LabelSpace.from_dict(values["labels"])
    except (KeyError, TypeError, AttributeError) as error:
        raise MedvarError(f"{path} does not contain the conditions of its transformer ({error!r}).") from error


def _metadata(kind: str, **values: Any) -> dict[str, str]:
    return {"medvar": json.dumps({"kind": kind, **values})}


def _read(path: Path, *kinds: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = read_tensors(path)
    try:
        values = plain_json.loads(metadata["medvar"])
        found = values["kind"]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = f"{path} was not written by medvar: it lacks the 'medvar' metadata. Import it first."
        raise MedvarError(reason) from error
    if found not in kinds:
        raise MedvarError(f"{path} contains a {str(found)[:40]}, but a {kinds[0]} is needed.")
    try:
        _check_config(values["config"], tensors)
    except (KeyError, TypeError, ValueError, MedvarError) as error:
        raise MedvarError(f"The weights in {path} do not fit its configuration: {error}") from error
    return tensors, values


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _fill(path: Path, tensors: Mapping[str, Tensor], build: Callable[[], _Model]) -> _Model:
    """The model of ``build`` with ``tensors`` as its weights, in eval mode."""
    try:
        with torch.device("meta"):  # no initialisation, because the weights are loaded already
            model = build()
        expected = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        for name, tensor in tensors.items():
            if name in expected and tensor.is_floating_point() != expected[name].is_floating_point:
                raise ValueError(f"{name} holds {tensor.dtype}, but {expected[name]} is expected")
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} holds NaN or infinity")
        fitting = {name: tensor.to(expected.get(name, tensor.dtype)) for name, tensor in tensors.items()}
        model.load_state_dict(fitting, assign=True)
    except MedvarError:
        raise
    except Exception as error:  # a wrong configuration can raise any exception
        raise MedvarError(f"The weights in {path} do not fit its configuration: {error}") from error
    return model.eval()


def _check_config(config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raises `MedvarError` if a configuration needs more weights than the file has, before a network is created."""
    most = max(2**16, sum(tensor.numel() for tensor in tensors.values()))
    for name, value in config.items() if isinstance(config, Mapping) else ():
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > 1000 or any(isinstance(one, int | float) and abs(one) > most for one in numbers):
            raise MedvarError(f"{name} is {str(value)[:60]}, which needs more weights than the file has")
    # Each block and each residual block has its own tensors.
    counts = ("depth", "res_blocks", "refiner_blocks")
    if not isinstance(config, Mapping) or max(config.get(name, 1) for name in counts) > len(tensors):
        raise MedvarError(f"the configuration {str(config)[:60]} needs more weights than the file has")
