"""Models as single safetensors files that say themselves what they are; written whole or not at all."""

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
from medvar_engine.storage import create, take_name, temporary_of
from medvar_engine.tokens.codebook import codebook_digest
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json

_OF_MASKS = ("structures", "colours", "mask_scales", "mask_channels")
RESOLUTION = "resolution tokenizer"  # the kind that a file of a `ResolutionTokenizer` states
_Model = TypeVar("_Model", bound=torch.nn.Module)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``path`` through a temporary name beside it, so that it is whole or absent."""
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Shared or strided tensors are not storable; contiguous copies are.
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        create(temporary).close()  # so that no link which was put there is followed
        save_file(copies, temporary, dict(metadata) if metadata else None)
        take_name(temporary, path)
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
    except Exception as error:  # of a dtype that torch lacks, a shape that cannot be, …
        reason = f"{path} is not a whole safetensors file ({error}). Take it from its source again."
        raise MedvarError(reason) from error


def save_tokenizer(path: Path, model: AnyTokenizer) -> None:
    """Write a tokenizer of either kind and its configuration."""
    kind = RESOLUTION if isinstance(model, ResolutionTokenizer) else "tokenizer"
    config = dataclasses.asdict(model.config)
    if isinstance(model, ResolutionTokenizer) and not model.config.structures:  # as files were before there were masks
        config = {name: value for name, value in config.items() if name not in _OF_MASKS}
    write_tensors(path, model.state_dict(), _metadata(kind, config=config))


def load_tokenizer(path: Path) -> AnyTokenizer:
    """Read what `save_tokenizer` wrote, in eval mode."""
    tensors, values = _read(path, "tokenizer", RESOLUTION)

    def build() -> AnyTokenizer:
        config = _tuples(values["config"])
        if values["kind"] == RESOLUTION:
            return ResolutionTokenizer(ResolutionConfig(**config))
        return Tokenizer(TokenizerConfig(**config))

    return _fill(path, tensors, build)


def tokenizer_kind(path: Path) -> str:
    """What kind of tokenizer a file holds: ``"tokenizer"`` or `RESOLUTION`."""
    return str(_read(path, "tokenizer", RESOLUTION)[1]["kind"])


def tokenizer_digest(model: AnyTokenizer) -> str:
    """A name for all weights of a tokenizer: sha256."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_preview(path: Path, model: PreviewDecoder, codebook: str, tokenizer: str | None = None) -> None:
    """Write a light decoder, and the digests of the codebook whose latents it shows and of its whole tokenizer."""
    metadata = _metadata(
        "preview decoder", config=dataclasses.asdict(model.config), codebook=codebook, tokenizer=tokenizer
    )
    write_tensors(path, model.state_dict(), metadata)


def load_preview(path: Path) -> tuple[PreviewDecoder, str]:
    """Read what `save_preview` wrote: the light decoder in eval mode, and the digest of its codebook."""
    tensors, values = _read(path, "preview decoder")
    model = _fill(path, tensors, lambda: PreviewDecoder(PreviewConfig(**values["config"])))
    return model, str(values.get("codebook"))


def load_preview_of(path: Path, tokenizer: AnyTokenizer, owner: str) -> PreviewDecoder:
    """The light decoder for this very tokenizer, read from ``owner``.

    Raises `MedvarError` when it was trained for another one, also for one that shares its codebook: decoders that were
    trained on with the codes held still show the same latents otherwise.
    """
    model = load_preview_for(path, tokenizer.quantizer.codes, owner)
    trained_for = _read(path, "preview decoder")[1].get("tokenizer")
    if trained_for is not None and trained_for != tokenizer_digest(tokenizer):
        raise MedvarError(
            f"{path} was not trained for the tokenizer of {owner}: their codebooks agree, but not their other weights. "
            "Train a light decoder with stage=preview and that tokenizer."
        )
    return model


def load_preview_for(path: Path, codebook: FloatArray | None, owner: str) -> PreviewDecoder:
    """The light decoder for the tokenizer of ``owner``, whose codes are ``codebook`` ``(V, C)``.

    Raises `MedvarError` when it was trained for another tokenizer, or when nobody knows.
    """
    model, trained_for = load_preview(path)
    if codebook is None:
        raise MedvarError(f"{owner} has no codebook, which would tell whether {path} fits. Export that model again.")
    if trained_for != codebook_digest(codebook):
        raise MedvarError(
            f"{path} was not trained for the tokenizer of {owner}: their codebooks differ. Train a light decoder with "
            "stage=preview and that tokenizer."
        )
    return model


def save_transformer(path: Path, model: Transformer, labels: LabelSpace) -> None:
    """Write a transformer, its configuration and the names of its conditions."""
    metadata = _metadata("transformer", config=dataclasses.asdict(model.config), labels=labels.to_dict())
    write_tensors(path, model.state_dict(), metadata)


def load_transformer(path: Path) -> tuple[Transformer, LabelSpace]:
    """Read what `save_transformer` wrote, in eval mode."""
    tensors, values = _read(path, "transformer")
    model = _fill(path, tensors, lambda: Transformer(TransformerConfig(**_tuples(values["config"]))))
    try:
        return model, LabelSpace.from_dict(values["labels"])
    except (KeyError, TypeError, AttributeError) as error:
        raise MedvarError(f"{path} does not say for which conditions its transformer is ({error!r}).") from error


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
        raise MedvarError(f"{path} holds a {str(found)[:40]}, but a {kinds[0]} is needed here.")
    try:
        _check_config(values["config"], tensors)
    except (KeyError, TypeError, ValueError, MedvarError) as error:
        raise MedvarError(f"The weights in {path} do not fit its own configuration: {error}") from error
    return tensors, values


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _fill(path: Path, tensors: Mapping[str, Tensor], build: Callable[[], _Model]) -> _Model:
    """The model that ``build`` makes, with ``tensors`` as its weights, in eval mode."""
    try:
        with torch.device("meta"):  # the weights are read already: initialising others first would only take time
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
    except Exception as error:  # a configuration can be wrong in many ways
        raise MedvarError(f"The weights in {path} do not fit its own configuration: {error}") from error
    return model.eval()


def _check_config(config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raises `MedvarError` for a configuration of more than its weights can be, before a network of it is made."""
    most = max(2**16, sum(tensor.numel() for tensor in tensors.values()))
    for name, value in config.items() if isinstance(config, Mapping) else ():
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > 1000 or any(isinstance(one, int | float) and abs(one) > most for one in numbers):
            raise MedvarError(f"{name} is {str(value)[:60]}, which is more than the weights that are there")
    # Each block and each residual block has tensors of its own.
    counts = ("depth", "res_blocks", "refiner_blocks")
    if not isinstance(config, Mapping) or max(config.get(name, 1) for name in counts) > len(tensors):
        raise MedvarError(f"it says {str(config)[:60]}, which is more than the weights that are there")
