"""The parts of the networks as separate modules, and their ONNX graphs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import onnx
import torch
from torch import Tensor, nn
from torch.func import functional_call

from medvar_engine.bundle.read import ENCODE, PREVIEW
from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.preview_decoder import PreviewDecoder
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionQuantizer, ResolutionTokenizer
from medvar_engine.models.transformer import Transformer
from medvar_export.accumulate_graph import OPSET, accumulate_graph


class EncodeGraph(nn.Module):
    """Encodes an image as the tokens of all scales in one sequence."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, image: Tensor) -> Tensor:
        """``(B, image channels, H, W)`` → ``(B, L)``."""
        return torch.cat(self.tokenizer.encode(image), dim=1)


class ResolutionEncodeGraph(nn.Module):
    """`EncodeGraph` for a pyramid of resolutions. Its patches are an input, because the bundle has them already."""

    def __init__(self, tokenizer: ResolutionTokenizer) -> None:
        super().__init__()
        self.encode = EncodeGraph(tokenizer)
        self.config = tokenizer.config

    def forward(self, image: Tensor, codebook: Tensor) -> Tensor:
        """Images ``(B, image channels, H, W)`` and the bundle's codebook ``(K, V, C)`` → ``(B, L)``."""
        patches = {}
        for k, codes in enumerate(codebook):
            begin, end = self.config.coded(k)
            patches[f"tokenizer.quantizer.patches_{k}"] = codes[:, begin:end]
        return functional_call(self.encode, patches, (image,))  # type: ignore[no-any-return]


class DecodeGraph(nn.Module):
    """Decodes a latent to an image."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, latent: Tensor) -> Tensor:
        """``(B, C, side, side)`` → ``(B, image channels, H, W)``."""
        return self.tokenizer.decode(latent)


class StepGraph(nn.Module):
    """One scale of the transformer.

    The same graph is used for all scales, with the ``positions`` of tokens as input.
    """

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, labels: Tensor, features: Tensor, past: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Run one scale like `Transformer.step`, in the precision of the weights.

        Args:
            labels: ``(B, F)``.
            features: ``(B, L, C)``; ignored at the first scale.
            past: ``(depth, 2, B, heads, P, d)``, with P = 0 at the first scale.
            positions: ``(B, L)``, the positions of the scale's tokens in the sequence of all tokens.

        Returns:
            Logits ``(B, L, V)``, and the keys and values of these tokens ``(depth, 2, B, heads, L, d)``.
        """
        net = self.transformer
        dtype = net.head.weight.dtype
        features, past = features.to(dtype), past.to(dtype)
        condition = net.condition(labels)
        first = condition[:, None] + net.start[:1]
        x = torch.where(positions[:, :, None] == 0, first, net.features(features))
        x = x + net.scales(net.get_buffer("scale_of")[positions]) + net.positions[positions]
        logits, present = net.continue_prefix(x, condition, past)
        return logits.float(), present.float()


class AccumulateGraph(nn.Module):
    """Adds one scale to the canvas, and computes the scale features of the next scale."""

    def __init__(self, quantizer: ResolutionQuantizer, k: int) -> None:
        super().__init__()
        self.quantizer, self.k = quantizer, k

    def forward(self, latent: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, p², side, side)`` and ``(B, L_k)`` → canvas, and features ``(B, L_{k+1}, C)`` (unused at the end)."""
        total = latent + self.quantizer.lift(tokens, self.k)
        last = self.k + 1 == len(self.quantizer.schedule)
        return total, total.flatten(2).mT if last else self.quantizer.pool(total, self.k + 1)


class CanvasPreviewGraph(nn.Module):
    """Shows the canvas as an image in [-1, 1], for previews."""

    def __init__(self, tokenizer: ResolutionTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, latent: Tensor) -> Tensor:
        """``(B, p², side, side)`` → ``(B, 1, H, W)``."""
        return self.tokenizer.preview(latent)


def tokenizer_graphs(tokenizer: AnyTokenizer) -> dict[str, onnx.ModelProto]:
    """Graphs ``encode``, ``decode``, one ``accumulate`` per scale and, if previews need no network, ``preview``."""
    config, side = tokenizer.config, tokenizer.schedule.latent_side
    channels = config.input_channels if isinstance(config, ResolutionConfig) else config.image_channels
    image = torch.zeros(2, channels, config.image_size, config.image_size)
    latent = torch.zeros(2, config.latent_channels, side, side)
    batch = {"latent": {0: "batch"}}
    graphs = {
        ENCODE: _encode_graph(tokenizer, image),
        "decode.onnx": export_graph(DecodeGraph(tokenizer), {"latent": latent}, ["image"], batch),
    }
    for k, count in enumerate(tokenizer.schedule.token_counts):
        name = f"accumulate_{k}.onnx"
        if isinstance(tokenizer, ResolutionTokenizer):
            inputs = {"latent": latent, "tokens": torch.zeros(2, count, dtype=torch.int64)}
            rows = {name: {0: "batch"} for name in inputs}
            graphs[name] = export_graph(AccumulateGraph(tokenizer.quantizer, k), inputs, ["total", "features"], rows)
        else:
            graphs[name] = accumulate_graph(tokenizer.quantizer, k)
    if isinstance(tokenizer, ResolutionTokenizer):
        graphs[PREVIEW] = export_graph(CanvasPreviewGraph(tokenizer), {"latent": latent}, ["image"], batch)
    return graphs


def _encode_graph(tokenizer: AnyTokenizer, image: Tensor) -> onnx.ModelProto:
    """The graph ``encode`` for images of the shape of ``image``."""
    rows = {"image": {0: "batch"}}
    if not isinstance(tokenizer, ResolutionTokenizer):
        return export_graph(EncodeGraph(tokenizer), {"image": image}, ["tokens"], rows)
    inputs = {"image": image, "codebook": torch.from_numpy(tokenizer.quantizer.codes)}
    return export_graph(ResolutionEncodeGraph(tokenizer), inputs, ["tokens"], {**rows, "codebook": {}})


class PreviewGraph(nn.Module):
    """Decodes a latent to a preview in [-1, 1] with the light decoder."""

    def __init__(self, preview: PreviewDecoder) -> None:
        super().__init__()
        self.preview = preview

    def forward(self, latent: Tensor) -> Tensor:
        """``(B, C, side, side)`` → ``(B, image channels, H, W)``."""
        return self.preview.decode(latent)


def preview_graph(preview: PreviewDecoder, side: int) -> onnx.ModelProto:
    """The graph of the light decoder, for latents of ``side``."""
    latent = torch.zeros(2, preview.config.latent_channels, side, side)
    return export_graph(PreviewGraph(preview), {"latent": latent}, ["image"], {"latent": {0: "batch"}})


def step_graph(transformer: Transformer) -> onnx.ModelProto:
    """The graph of the transformer for one scale."""
    config, schedule = transformer.config, transformer.schedule
    if schedule.token_counts[0] != 1:
        raise ValueError("The exported step requires a first scale of one token.")
    past = torch.zeros(config.depth, 2, 2, config.heads, 5, config.width // config.heads)
    inputs = {
        "labels": torch.zeros(2, len(config.labels), dtype=torch.int64),
        "features": torch.zeros(2, 9, config.latent_channels),
        "past": past,
        "positions": torch.arange(9).expand(2, 9) % schedule.tokens,
    }
    rows = {0: "batch", 1: "length"}
    dynamic = {"labels": {0: "batch"}, "features": rows, "past": {2: "batch", 4: "prefix"}, "positions": rows}
    return export_graph(StepGraph(transformer), inputs, ["logits", "present"], dynamic)


def export_graph(
    module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], dynamic: dict[str, dict[int, str]]
) -> onnx.ModelProto:
    """Trace a module to a graph. ``dynamic`` gives names to the variable axes of each input."""
    dims = {name: torch.export.Dim(name) for axes in dynamic.values() for name in axes.values()}
    shapes = {name: {axis: dims[dim] for axis, dim in axes.items()} for name, axes in dynamic.items()}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The metadata of operators contain paths of the exporting computer, which do not belong in a bundle.
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages of the exporter that users cannot act on, e.g. about missing torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
