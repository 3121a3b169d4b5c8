"""A small transformer for the fine scales of a bundle: checked, exported, and compared with torch."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from medvar_engine.backends.base import BackendInfo
from medvar_engine.backends.collaborative import check_together
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle import FINE, Bundle, FineTransformer
from medvar_engine.errors import MedvarError
from medvar_engine.models.files import load_transformer
from medvar_engine.models.transformer import Transformer
from medvar_export.parity import FLOAT32_BAR
from medvar_export.precision import PRECISIONS, Precision, step_in

_LARGEST = 2**30  # bytes; what is larger is no small transformer, and protobuf ends not far above


class FineWeights(NamedTuple):
    """A trained transformer, and the first scale that it is to draw."""

    path: Path
    from_scale: int


def load_fine(fine: FineWeights, main: BackendInfo) -> Transformer:
    """The transformer of ``fine``, once it is clear that it can draw its scales beside the model ``main``.

    Raises `MedvarError` when it was trained for tokens of another shape or other conditions, or when one of the two
    would have nothing to draw.
    """
    network, labels = load_transformer(fine.path)
    config = network.config
    own = replace(
        main,
        schedule=network.schedule,
        vocabulary=config.vocabulary,
        latent_channels=config.latent_channels,
        labels=labels,
    )
    try:
        check_together(main, own, fine.from_scale)
    except MedvarError as error:
        raise MedvarError(f"{fine.path} cannot draw the fine scales here. {error}") from error
    return network


def export_fine(network: Transformer, from_scale: int, bundle: Bundle) -> tuple[bytes, dict[str, int], float]:
    """What `load_fine` gave as ``fine.onnx`` for ``bundle``, in its precision.

    Gives the graph, what the manifest says of it under ``fine``, and the largest difference of its logits from torch's.
    Raises `MedvarError` when that is too large.
    """
    precision = next((one for one in PRECISIONS if one == bundle.precision), None)
    if precision is None:
        raise MedvarError(f"{bundle.path} has the precision {bundle.precision!r}; known are {', '.join(PRECISIONS)}.")
    graph, config = _graph(network, precision), network.config
    shape = {"depth": config.depth, "heads": config.heads, "head_dim": config.width // config.heads}
    difference = _difference(network, graph, replace(bundle, fine=FineTransformer(from_scale, shape)))
    if not np.isfinite(difference) or (bundle.precision == "float32" and difference > FLOAT32_BAR):
        raise MedvarError(
            f"The exported transformer differs from torch by {difference:.2g}, where {FLOAT32_BAR} is allowed."
        )
    return graph, {"from_scale": from_scale, **shape}, difference


def _graph(network: Transformer, precision: Precision) -> bytes:
    graph = step_in(precision, network)
    if graph.ByteSize() > _LARGEST:
        raise MedvarError(f"A transformer for fine scales is small, but this one takes {graph.ByteSize() >> 20} MB.")
    return graph.SerializeToString()


def _difference(network: Transformer, graph: bytes, bundle: Bundle) -> float:
    """The largest difference of logits from torch's, over all scales of features of noise."""
    rng, space = np.random.default_rng(0), bundle.labels
    labels = np.array([[size // 2 for size in space.sizes], space.unconditional], dtype=np.int64)
    worst, past = 0.0, None
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        (Path(folder) / FINE).write_bytes(graph)
        alone = replace(bundle, path=Path(folder), sha256={FINE: hashlib.sha256(graph).hexdigest()})
        exported = OnnxBackend(alone, device="cpu", graph=FINE)
        state = exported.start(labels)
        for k, count in enumerate(bundle.schedule.token_counts):
            features = rng.normal(size=(len(labels), count, bundle.latent_channels)).astype(np.float32) if k else None
            expected, present = network.step(
                torch.from_numpy(labels), None if features is None else torch.from_numpy(features), past, k
            )
            logits, state = exported.step(state, features)
            # numpy's maximum, for Python's would drop a NaN.
            worst = float(np.maximum(worst, np.abs(logits - expected.numpy()).max()))
            past = present if past is None else torch.cat((past, present), dim=4)
    return worst
