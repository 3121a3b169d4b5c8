"""The SimCLR encoder as ONNX: what the training index of a bundle carries, so that the gate needs no torch."""

from __future__ import annotations

import torch

from medvar_engine.encoders.simclr import SimCLREncoder
from medvar_export.graphs import export_graph


def encoder_graph(encoder: SimCLREncoder) -> bytes:
    """``image`` ``(B, 1, size, size)`` in [-1, 1] → ``features`` ``(B, D)``: the content of an ONNX file.

    >>> onnx = encoder_graph(SimCLREncoder.load(Path("simclr.safetensors")))  # doctest: +SKIP
    >>> gate_encoder = OnnxEncoder(onnx, encoder.preprocessing, name="simclr")  # doctest: +SKIP
    """
    size = encoder.preprocessing.size
    image = torch.zeros(2, 1, size, size)
    graph = export_graph(encoder.network, {"image": image}, ["features"], {"image": {0: "batch"}})
    return graph.SerializeToString()
