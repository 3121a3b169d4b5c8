"""The latent update of one scale as an ONNX graph.

The graph has few operators (look up, upsample, φ, add, pool), so it is written by hand and not traced.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from medvar_engine.models.quantizer import MultiScaleQuantizer

OPSET = 20
IR_VERSION = 10  # the version that belongs to opset 20, so that older runtimes can load the graph


def accumulate_graph(quantizer: MultiScaleQuantizer, k: int) -> onnx.ModelProto:
    """Latent ``(B, C, side, side)`` and tokens ``(B, L_k)`` → ``total`` latent, and ``features`` ``(B, L_{k+1}, C)``.

    For the finest scale, which has no next one, the features are the latent itself and are not used.
    """
    schedule, channels = quantizer.schedule, quantizer.channels
    side, latent_side = schedule[k], schedule.latent_side
    following = schedule[min(k + 1, len(schedule) - 1)]
    phi = quantizer.phi(k)
    with torch.no_grad():  # (1-r)·h + r·conv(h) equals one convolution
        kernel = phi.weight * phi.ratio
        centre = torch.eye(channels, device=kernel.device) * (1 - phi.ratio)
        kernel[:, :, 1, 1] += centre
        bias = phi.bias * phi.ratio if phi.bias is not None else torch.zeros(channels)
    up = quantizer.get_buffer(f"up_{k}")
    down = quantizer.get_buffer(f"down_{min(k + 1, len(schedule) - 1)}")
    constants = {
        "codebook": quantizer.codebook.weight,
        "grid": torch.tensor([0, channels, side, side]),
        "up": up,
        "up_t": up.mT,
        "kernel": kernel,
        "bias": bias,
        "down": down,
        "down_t": down.mT,
        "flat": torch.tensor([0, channels, following * following]),
    }
    nodes = [
        helper.make_node("Gather", ["codebook", "tokens"], ["codes"]),
        helper.make_node("Transpose", ["codes"], ["codes_first"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["codes_first", "grid"], ["map"]),
        helper.make_node("MatMul", ["up", "map"], ["tall"]),
        helper.make_node("MatMul", ["tall", "up_t"], ["lifted"]),
        helper.make_node("Conv", ["lifted", "kernel", "bias"], ["added"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["latent", "added"], ["total"]),
        helper.make_node("MatMul", ["down", "total"], ["short"]),
        helper.make_node("MatMul", ["short", "down_t"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "flat"], ["sequence"]),
        helper.make_node("Transpose", ["sequence"], ["features"], perm=[0, 2, 1]),
    ]
    latent_shape: list[str | int | None] = ["batch", channels, latent_side, latent_side]
    graph = helper.make_graph(
        nodes,
        f"accumulate_{k}",
        [
            helper.make_tensor_value_info("latent", TensorProto.FLOAT, latent_shape),
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", side * side]),
        ],
        [
            helper.make_tensor_value_info("total", TensorProto.FLOAT, latent_shape),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", following * following, channels]),
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(value.detach().cpu().numpy()), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model
