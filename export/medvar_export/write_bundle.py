"""`export_bundle`: writes a bundle folder atomically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.onnx_sessions import DATA
from medvar_engine.backends.torch import TorchBackend, weights_digest
from medvar_engine.bundle.read import (
    CARD,
    CODEBOOK,
    GUIDE,
    PREVIEW,
    SCHEMA_VERSION,
    STEP,
    SliceType,
    read_bundle,
    slice_type_to_dict,
)
from medvar_engine.bundle.sign import file_hashes, write_manifest
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import structures_of, to_dicts
from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.grey import as_grey
from medvar_engine.models.import_var import is_published
from medvar_engine.models.pretrained import check_tokenizer, load_guide
from medvar_engine.models.resolution_tokenizer import ResolutionConfig
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_preview_of, load_tokenizer, load_transformer
from medvar_engine.request import Sampling
from medvar_engine.storage import whole_folder
from medvar_export.graphs import tokenizer_graphs
from medvar_export.held_out import held_out_slices
from medvar_export.parity import DIFFERENCES, FLOAT32_BAR, HeldOut, measure_parity
from medvar_export.precision import PRECISIONS, Precision, step_in, stored
from medvar_export.preview_graph import export_preview

TOKENS_BAR = 0.98  # least share of the encoder's tokens that equal those of torch; nearly equal codes may differ
_LARGEST_SINGLE_FILE = 2**31 - 2**20  # the limit of protobuf with some margin


@dataclass(frozen=True)
class Description:
    """The description of a bundle in addition to its graphs."""

    name: str
    licence: str
    attributions: tuple[str, ...]
    training_data: str
    card: str  # Markdown
    slice_types: tuple[SliceType, ...] = ()
    sampling: Sampling = Sampling()
    default_condition: Condition | None = None


def export_bundle(
    tokenizer: Path,
    transformer: Path,
    out: Path,
    description: Description,
    *,
    precision: Precision = "float32",
    data: Path | None = None,
    preview: Path | None = None,
    guide: Path | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Export trained weights to the folder ``out``, which must not exist yet, with a parity check against torch.

    ``float16-weights`` stores weights in half precision and computes in float32; ``float16`` computes the transformer
    in half precision, for GPUs; ``int8-weights`` computes most of its matrix products in int8, for CPUs, and stores the
    rest in half precision. ``data`` is the folder of training slices; if given, the loss on held-out slices is
    compared, too. ``preview`` is a light decoder for this tokenizer. ``guide`` is a weaker transformer of the same
    tokens and labels, for guidance.

    A tokenizer of colour images is converted to one of grey images, as in training. Only a published VAR, which knows
    the classes of ImageNet only, keeps its colours, unless ``data`` shows that it was trained on slices. Returns the
    folder. Raises `MedvarError` for unsuitable files, and when the graphs differ too much from torch.
    """
    if precision not in PRECISIONS:
        raise MedvarError(f"Unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if out.exists():
        raise MedvarError(f"{out} exists already; choose another folder or remove it first.")
    coder = load_tokenizer(tokenizer)
    network, labels = load_transformer(transformer)
    if data is not None or not is_published(labels):
        coder = as_grey(coder)
    check_tokenizer(network, coder.config, (str(transformer), str(tokenizer)))
    if network.schedule.token_counts[0] != 1:
        raise MedvarError(
            f"{transformer} starts with a scale of side {network.schedule[0]}. Only models that start at 1 can be "
            "exported."
        )
    weaker = load_guide(guide, coder.config, str(tokenizer), labels) if guide else None
    reference = TorchBackend(coder, network, labels, guide=weaker)
    light = load_preview_of(preview, coder, str(tokenizer)) if preview else None
    pairs = isinstance(coder.config, ResolutionConfig) and bool(coder.config.structures)
    held_out = held_out_slices(data, labels, coder.config.image_size, masks=pairs) if data else None
    with whole_folder(out) as temporary:  # checked before the long computation
        log("Tracing the tokenizer and the transformer …")
        graphs = _graphs(coder, network, precision)
        if weaker is not None:
            graphs[GUIDE] = step_in(precision, weaker)
        for name, graph in graphs.items():
            write_graph(temporary / name, graph)
        parity = {}
        if light is not None:
            content, parity["preview"] = export_preview(light, coder.schedule.latent_side)
            (temporary / PREVIEW).write_bytes(content)
        _write_codebook(temporary / CODEBOOK, coder, precision)
        (temporary / CARD).write_text(description.card, encoding="utf-8")
        manifest = _manifest(coder, network, weaker, labels, description, precision, temporary)
        write_manifest(temporary, manifest)
        log("Comparing with torch …")
        manifest["parity"] = _parity(reference, temporary, precision, held_out) | parity
        write_manifest(temporary, manifest)
    return out


def _graphs(tokenizer: AnyTokenizer, transformer: Transformer, precision: Precision) -> dict[str, onnx.ModelProto]:
    graphs = {name: stored(graph, precision) for name, graph in tokenizer_graphs(tokenizer).items()}
    return {**graphs, STEP: step_in(precision, transformer)}


def _write_codebook(path: Path, tokenizer: AnyTokenizer, precision: Precision) -> None:
    """Write the codes as in the graphs: ``(V, C)``, or ``(K, V, C)`` with one codebook per scale."""
    codes = tokenizer.quantizer.codes
    with path.open("wb") as file:
        np.save(file, codes if precision == "float32" else codes.astype(np.float16), allow_pickle=False)


def write_graph(path: Path, graph: onnx.ModelProto, *, largest: int = _LARGEST_SINGLE_FILE) -> None:
    """Write a graph; if it has more than ``largest`` bytes, its weights go to ``<name>.data`` beside it."""
    if graph.ByteSize() <= largest:
        path.write_bytes(graph.SerializeToString())
        return
    location = path.name + DATA
    onnx.save_model(graph, path, save_as_external_data=True, location=location, size_threshold=1024)


def _manifest(
    tokenizer: AnyTokenizer,
    transformer: Transformer,
    guide: Transformer | None,
    labels: LabelSpace,
    description: Description,
    precision: Precision,
    folder: Path,
) -> dict[str, Any]:
    config = tokenizer.config
    networks = (tokenizer, transformer, *([] if guide is None else [guide]))
    return {
        "schema_version": SCHEMA_VERSION,
        "name": description.name,
        "labels": labels.to_dict(),
        "schedule": list(config.schedule),
        "model": {
            "vocabulary": config.vocabulary,
            "latent_channels": config.latent_channels,
            "feature_channels": config.feature_channels,
            "image_size": config.image_size,
            "image_channels": config.image_channels,
            **_keys_and_values(transformer),
            "parameters": sum(p.numel() for network in networks for p in network.parameters()),
        },
        "precision": precision,
        "sampling": description.sampling.to_dict(),
        "cells": [slice_type_to_dict(slice_type) for slice_type in description.slice_types],
        **_default_condition(labels, description.default_condition),
        "licence": description.licence,
        "attributions": list(description.attributions),
        "training_data": description.training_data,
        **_masks(config),
        **({} if guide is None else {"guide": _keys_and_values(guide)}),
        "parity": {},
        "weights": weights_digest(tokenizer, transformer, guide),
        "sha256": file_hashes(folder),
    }


def _keys_and_values(transformer: Transformer) -> dict[str, int]:
    """The shape of the keys and values of a transformer."""
    shape = transformer.config
    return {"depth": shape.depth, "heads": shape.heads, "head_dim": shape.width // shape.heads}


def _masks(config: TokenizerConfig | ResolutionConfig) -> dict[str, Any]:
    """The fields about masks in the manifest; empty for models without masks."""
    if not isinstance(config, ResolutionConfig) or not config.structures:
        return {}
    structures = structures_of(config.structures, dict(zip(config.structures, config.colours, strict=True)))
    return {"masks": {"structures": to_dicts(structures), "scales": list(config.mask_scales)}}


def _default_condition(labels: LabelSpace, condition: Condition | None) -> dict[str, Any]:
    """The manifest field of the default condition, if there is one. Raises `MedvarError` for an unknown label."""
    if condition is None:
        return {}
    labels.encode(condition)
    return {"default_condition": condition.to_dict()}


def _parity(reference: TorchBackend, folder: Path, precision: Precision, held_out: HeldOut | None) -> dict[str, float]:
    exported = OnnxBackend(read_bundle(folder), device="cpu")
    parity = measure_parity(reference, exported, held_out)
    worst = max(parity[name] for name in DIFFERENCES)
    if not np.isfinite(list(parity.values())).all():
        raise MedvarError(
            f"The exported graphs return values that are not finite: {parity}. Export with precision float32."
        )
    agreeing = parity["tokens_agreeing"]
    if precision == "float32" and (worst > FLOAT32_BAR or agreeing < TOKENS_BAR):
        raise MedvarError(
            f"The exported graphs differ from torch by {worst:.2g} (at most {FLOAT32_BAR} is allowed), and in "
            f"{1 - agreeing:.1%} of the encoder's tokens (at most {1 - TOKENS_BAR:.0%} is allowed): {parity}."
        )
    return parity
