"""Exports the light decoder as a graph and compares it with torch."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from medvar_engine.errors import MedvarError
from medvar_engine.models.preview_decoder import PreviewDecoder
from medvar_export.graphs import preview_graph
from medvar_export.precision import store_half

# largest accepted difference of a preview from torch with half-precision weights; 1/400 of the range of pixels
BAR = 5e-3


def export_preview(model: PreviewDecoder, side: int) -> tuple[bytes, float]:
    """``preview.onnx`` for latents of ``side``, and its largest difference from torch.

    Raises `MedvarError` when that is above `BAR`.
    """
    graph = store_half(preview_graph(model, side)).SerializeToString()
    latent = np.random.default_rng(0).normal(size=(3, model.config.latent_channels, side, side)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"latent": latent})
    with torch.no_grad():
        difference = float(np.abs(found - model.decode(torch.from_numpy(latent)).numpy()).max())
    if not difference <= BAR:
        raise MedvarError(
            f"The exported light decoder differs from torch by {difference:.2g}, but at most {BAR} is allowed."
        )
    return graph, difference
