"""Reads torch weights back from the ONNX graphs of a bundle, so that a published model can be trained further.

The exporter folds and renames constants, but every node names the module that it computes: a product in
``transformer.blocks.0.mlp.0`` multiplies by the weight of that module, whatever the name of the constant. Weights in
half precision are converted to float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from medvar_engine.bundle.read import ENCODE, GUIDE, STEP, Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.grey import as_grey
from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import save_tokenizer, save_transformer

Array = npt.NDArray[Any]
Weights = dict[str, Array]
_Model = TypeVar("_Model", Tokenizer, ResolutionTokenizer, Transformer)
_SCOPES = "pkg.torch.onnx.name_scopes"


def read_weights(bundle: Bundle) -> tuple[AnyTokenizer, Transformer]:
    """The networks of a bundle in eval mode, with the same results as its graphs apart from rounding.

    Values that graphs do not contain are those of a new network: the use of codes, and dropout rates. Raises
    `MedvarError` when a file does not match ``bundle.json`` or contains other networks.
    """
    return _tokenizer(bundle), _transformer(bundle, STEP)


def write_weights(bundle: Bundle, folder: Path) -> tuple[Path, Path]:
    """Write `read_weights` as files for training, ``tokenizer.safetensors`` and ``transformer.safetensors``.

    A tokenizer of colour images is converted to one of grey images. Returns both paths.
    """
    tokenizer, transformer = read_weights(bundle)
    paths = folder / "tokenizer.safetensors", folder / "transformer.safetensors"
    save_tokenizer(paths[0], as_grey(tokenizer))
    save_transformer(paths[1], transformer, bundle.labels)
    return paths


def write_guide(bundle: Bundle, folder: Path) -> Path | None:
    """Write the guide of a bundle as ``guide.safetensors`` and return its path; None if the bundle has no guide."""
    if bundle.guide is None:
        return None
    guide = _transformer(replace(bundle, transformer=bundle.guide), GUIDE)
    save_transformer(path := folder / "guide.safetensors", guide, bundle.labels)
    return path


def _transformer(bundle: Bundle, file: str) -> Transformer:
    weights = _weights(bundle, file)
    depth, heads = bundle.transformer["depth"], bundle.transformer["heads"]
    width = heads * bundle.transformer["head_dim"]
    try:
        config = TransformerConfig(
            schedule=tuple(bundle.schedule),
            vocabulary=bundle.vocabulary,
            latent_channels=bundle.feature_channels,
            labels=bundle.labels.sizes,
            depth=depth,
            width=width,
            heads=heads,
            mlp_ratio=len(weights["blocks.0.mlp.0.bias"]) / width,
            shared_modulation="shared_modulation.linear.weight" in weights,
        )
    except KeyError as error:
        raise _refusal(bundle, file, f"it lacks {error}") from error
    for i in range(depth):
        if (bias := weights.pop(f"blocks.{i}.attention.bias", None)) is not None:
            weights[f"blocks.{i}.attention.q_bias"], _, weights[f"blocks.{i}.attention.v_bias"] = np.split(bias, 3)
    return _fill(bundle, file, lambda: Transformer(config), weights)


def _tokenizer(bundle: Bundle) -> AnyTokenizer:
    codes = bundle.codebook()
    if codes is not None and codes.ndim == 3:  # one codebook per scale
        return _resolution_tokenizer(bundle, codes)
    return _latent_tokenizer(bundle)


def _resolution_tokenizer(bundle: Bundle, codes: Array) -> ResolutionTokenizer:
    weights = _weights(bundle, "decode.onnx")
    try:
        for k in range(1, len(bundle.schedule)):
            kernels, offsets = _convolution(bundle, f"accumulate_{k - 1}.onnx")
            weights |= {f"quantizer.feature_kernels_{k}": kernels, f"quantizer.feature_offsets_{k}": offsets}
        patch = bundle.image_size // bundle.schedule.latent_side
        masks: dict[str, Any] = {}
        if bundle.structures:
            masks = {
                "structures": tuple(one.name for one in bundle.structures),
                "colours": tuple(one.colour for one in bundle.structures),
                "mask_scales": bundle.mask_scales,
                "mask_channels": bundle.latent_channels // patch**2 - 1,
            }
            weights["mask.vectors"] = _vectors(bundle, len(bundle.structures) + 1, masks["mask_channels"])
        made = bundle.image_channels + (len(bundle.structures) + 1 if bundle.structures else 0)
        config = ResolutionConfig(
            image_size=bundle.image_size,
            schedule=tuple(bundle.schedule),
            vocabulary=bundle.vocabulary,
            feature_channels=bundle.feature_channels,
            patch=patch,
            margin=(kernels.shape[-1] - patch) // 2,
            refiner_widths=(len(weights["refiner.conv_in.weight"]), len(weights["refiner.down.weight"])),
            refiner_blocks=_count(weights, "refiner.coarse.{}.conv1.weight"),
            groups=int(weights["groups"]),
            grain=len(weights["refiner.conv_out.weight"]) > 4 * made,
            **masks,
        )
    except (KeyError, ValueError) as error:
        raise _refusal(bundle, "its tokenizer's graphs", f"they lack {error}") from error
    for k, own in enumerate(codes):
        begin, end = config.coded(k)
        weights[f"quantizer.patches_{k}"] = own[:, begin:end]
    return _fill(bundle, "its tokenizer's graphs", lambda: ResolutionTokenizer(config), weights)


def _vectors(bundle: Bundle, count: int, channels: int) -> Array:
    """The directions of structures by which masks are encoded. Raises `KeyError` when there are none."""
    for value in _constants(_graph(bundle, ENCODE)).values():
        if value.shape == (count, channels) and value.dtype.kind == "f":
            return value
    raise KeyError("the directions of structures in encode.onnx")


def _convolution(bundle: Bundle, file: str) -> tuple[Array, Array]:
    """Kernel and bias of the only convolution of a graph. Raises `KeyError` when there is none."""
    for node in _nodes(bundle, file):
        if node.op == "Conv":
            return node.constants[1], node.constants[2]
    raise KeyError(f"a convolution in {file}")


def _latent_tokenizer(bundle: Bundle) -> Tokenizer:
    weights = _weights(bundle, ENCODE) | _weights(bundle, "decode.onnx")
    try:
        config = _tokenizer_config(bundle, weights)
        scales = [_constants(_graph(bundle, f"accumulate_{k}.onnx")) for k in range(len(bundle.schedule))]
        choice = _phi_of_scales(bundle, weights, [scale["kernel"] for scale in scales])
        # Codes and φ are taken from the graphs of generation, in which φ's ratio r is folded into its kernel:
        # kernel = r·w + (1 - r)·identity.
        identity = nn.init.dirac_(torch.empty(config.latent_channels, config.latent_channels, 3, 3)).numpy()
        weights["quantizer.codebook.weight"] = scales[0]["codebook"]
        ratio = _ratio(scales[0]["kernel"] - identity, weights[f"quantizer.phis.{choice[0]}.weight"] - identity)
        for phi, scale in zip(choice, scales, strict=True):
            weights[f"quantizer.phis.{phi}.weight"] = (scale["kernel"] - (1 - ratio) * identity) / ratio
            weights[f"quantizer.phis.{phi}.bias"] = scale["bias"] / ratio
    except KeyError as error:
        raise _refusal(bundle, "its tokenizer's graphs", f"they lack {error}") from error
    config = replace(config, phis=max(choice) + 1, phi_ratio=ratio)
    weights["quantizer.usage"] = np.zeros((len(bundle.schedule), bundle.vocabulary), np.float32)
    return _fill(bundle, "its tokenizer's graphs", lambda: Tokenizer(config), weights)


def _phi_of_scales(bundle: Bundle, weights: Weights, kernels: list[Array]) -> list[int]:
    """The shared convolution of each scale. Only the encoder's graph names them, and it does not use the last one."""
    named = {int(name.split(".")[2]) for name in weights if re.fullmatch(r"quantizer\.phis\.\d+\.weight", name)}
    for count in range(1, len(kernels) + 1):
        with torch.device("meta"):
            quantizer = MultiScaleQuantizer(bundle.schedule, 1, 1, phis=count)
        phis = list(quantizer.phis)
        choice = [phis.index(quantizer.phi(k)) for k in range(len(kernels))]
        alike = all(np.array_equal(kernels[k], kernels[choice.index(phi)]) for k, phi in enumerate(choice))
        if set(choice) == set(range(count)) and set(choice[:-1]) == named and alike:
            return choice
    raise _refusal(bundle, "its tokenizer's graphs", f"{sorted(named)} are not convolutions of {len(kernels)} scales")


def _tokenizer_config(bundle: Bundle, weights: Weights) -> TokenizerConfig:
    """The configuration of a tokenizer, from the shapes of its weights."""
    stages = _count(weights, "encoder.stages.{}.blocks.0.conv1.weight")
    return TokenizerConfig(
        image_size=bundle.image_size,
        schedule=tuple(bundle.schedule),
        vocabulary=bundle.vocabulary,
        latent_channels=bundle.latent_channels,
        channels=tuple(len(weights[f"encoder.stages.{i}.blocks.0.conv1.weight"]) for i in range(stages)),
        res_blocks=_count(weights, "encoder.stages.0.blocks.{}.conv1.weight"),
        groups=int(weights["groups"]),
        attention=f"encoder.stages.{stages - 1}.attentions.0.qkv.weight" in weights,
        patch=math.isqrt(weights["encoder.conv_in.weight"].shape[1] // bundle.image_channels),
        image_channels=bundle.image_channels,
        linear_path="linear_in.weight" in weights,
    )


def _count(weights: Weights, pattern: str) -> int:
    """The number of consecutive names ``pattern.format(0)``, ``pattern.format(1)``, … that exist."""
    count = 0
    while pattern.format(count) in weights:
        count += 1
    return count


def _ratio(folded: Array, own: Array) -> float:
    """The ratio r in ``folded = r · own`` to three digits, because values may be rounded; 1/2 if it is undetermined."""
    norm = float((own * own).sum())
    return round(float((folded * own).sum()) / norm, 3) if norm > 1e-6 else 0.5


@dataclass(frozen=True)
class _Node:
    """One operator with the name of its module and the constants among its inputs."""

    op: str
    module: str  # without the name of the network
    constants: dict[int, Array]  # by position
    attributes: dict[str, Any]


def _weights(bundle: Bundle, file: str) -> Weights:
    """Weights by their names in the network; ``groups`` is the number of groups of group normalisation."""
    weights: Weights = {}
    for node in _nodes(bundle, file):
        for name, value in _named(node, bundle):
            weights[name if name == "groups" else f"{node.module}.{name}".lstrip(".")] = value
    return weights


def _named(node: _Node, bundle: Bundle) -> Iterator[tuple[str, Array]]:
    """The weights among a node's constants, by their names in its module."""
    constants = {i: value for i, value in node.constants.items() if value.dtype.kind == "f" and value.size > 0}
    last = node.module.rpartition(".")[2]
    match node.op:
        case "Conv" | "ConvTranspose" | "Gemm":
            flipped = node.op == "Gemm" and not node.attributes.get("transB", 0)
            for i, name in ((1, "weight"), (2, "bias")):
                if i in constants:
                    yield name, constants[i].T if flipped and i == 1 else constants[i]
        case "InstanceNormalization":
            yield "groups", np.array(len(constants[1]))
        case "MatMul" if 1 in constants and last != "quantizer":
            yield "qkv.weight" if last == "attention" else "weight", constants[1].T
        case "Gather" if node.module and 0 in constants:
            yield "weight", constants[0]
        case "Gather" | "GatherND" if 0 in constants and len(constants[0]) == bundle.schedule.tokens:
            yield "positions", constants[0]
        case "Add" | "Mul" if len(constants) == 1:
            (value,) = constants.values()
            yield from _added_or_multiplied(node.op, node.module, value, bundle)


def _added_or_multiplied(op: str, module: str, value: Array, bundle: Bundle) -> Iterator[tuple[str, Array]]:
    heads, last = bundle.transformer["heads"], module.rpartition(".")[2]
    if op == "Add" and not module and value.shape == (1, heads * bundle.transformer["head_dim"]):
        yield "start", value
    elif op == "Mul" and last == "attention" and value.shape == (heads, 1, 1):
        yield "log_scale", np.log(value)
    elif last.startswith("norm") and value.ndim == 3:  # scale and offset after group normalisation
        yield "weight" if op == "Mul" else "bias", value.reshape(-1)
    elif op == "Add" and value.ndim == 1:
        yield "offset" if module.startswith("blocks.") and last == "modulation" else "bias", value


def _nodes(bundle: Bundle, file: str) -> Iterator[_Node]:
    graph = _graph(bundle, file)
    constants = _constants(graph)
    for node in graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
        path = re.findall(r"'([^']*)'", scopes)  # the text of a Python list
        module = path[-2].partition(".")[2] if len(path) > 1 else ""  # the last name is that of the operator
        there = {i: constants[name] for i, name in enumerate(node.input) if name in constants}
        yield _Node(node.op_type, module, there, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})


def _constants(graph: onnx.GraphProto) -> Weights:
    """Constants by name, with floating-point numbers converted to float32."""
    constants = {tensor.name: _widened(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _widened(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _graph(bundle: Bundle, file: str) -> onnx.GraphProto:
    """A graph with a correct hash and no external data."""
    content = bundle.read(file)
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:  # protobuf raises its own exceptions
        raise _refusal(bundle, file, f"it is not an ONNX graph ({error})") from error
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise _refusal(bundle, file, f"its weight {tensor.name} lies in another file")
    return graph


def _fill(bundle: Bundle, file: str, build: Callable[[], _Model], weights: Weights) -> _Model:
    """The network of ``build`` with ``weights``. Raises `MedvarError` if a weight is missing."""
    try:
        with torch.device("meta"):
            model = build()
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        for name, shape in shapes.items():
            if name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in weights:
                weights.setdefault(name, np.zeros(shape, np.float32))  # biases of zeros are left out of graphs
        state: dict[str, Tensor] = {
            name: torch.from_numpy(np.array(weights[name], np.float32, order="C")) for name in shapes
        }
        model.load_state_dict(state, assign=True)
    except KeyError as error:
        raise _refusal(bundle, file, f"it lacks {error}") from error
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise _refusal(bundle, file, str(error)) from error
    return model.eval().requires_grad_(True)


def _refusal(bundle: Bundle, file: str, reason: str) -> MedvarError:
    return MedvarError(
        f"The weights of the bundle {bundle.path} cannot be read back from {file}: {reason}. "
        "Use the .safetensors files that it was exported from."
    )
