"""The networks of a bundle as modules of their own, and their ONNX graphs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import onnx
import torch
from torch import Tensor, nn

from medvar_engine.bundle.read import PREVIEW
from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.preview_decoder import PreviewDecoder
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionQuantizer, ResolutionTokenizer
from medvar_engine.models.transformer import Transformer
from medvar_export.accumulate_graph import OPSET, accumulate_graph


class EncodeGraph(nn.Module):
    """Image → tokens of all scales in one sequence."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, image: Tensor) -> Tensor:
        """``(B, image channels, H, W)`` → ``(B, L)``."""
        return torch.cat(self.tokenizer.encode(image), dim=1)


class DecodeGraph(nn.Module):
    """Latent → image."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, latent: Tensor) -> Tensor:
        """``(B, C, side, side)`` → ``(B, image channels, H, W)``."""
        return self.tokenizer.decode(latent)


class StepGraph(nn.Module):
    """One scale of the transformer. One graph serves all: ``positions`` says where its tokens lie."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, labels: Tensor, features: Tensor, past: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """One scale, as `Transformer.step`, in whatever precision the weights have.

        Args:
            labels: ``(B, F)``.
            features: ``(B, L, C)``; ignored at the first scale.
            past: ``(depth, 2, B, heads, P, d)``, with P = 0 at the first scale.
            positions: ``(B, L)``, of one scale's tokens in the sequence of all scales' tokens.

        Returns:
            Logits ``(B, L, V)`` and these tokens' own keys and values ``(depth, 2, B, heads, L, d)``.
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
    """The canvas with one scale more, and the next scale's features."""

    def __init__(self, quantizer: ResolutionQuantizer, k: int) -> None:
        super().__init__()
        self.quantizer, self.k = quantizer, k

    def forward(self, latent: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, p², side, side)`` and ``(B, L_k)`` → canvas and features ``(B, L_{k+1}, C)``, last unused."""
        total = latent + self.quantizer.lift(tokens, self.k)
        last = self.k + 1 == len(self.quantizer.schedule)
        return total, total.flatten(2).mT if last else self.quantizer.pool(total, self.k + 1)


class CanvasPreviewGraph(nn.Module):
    """Canvas → itself as an image in [-1, 1]: what shows scales on the way."""

    def __init__(self, tokenizer: ResolutionTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, latent: Tensor) -> Tensor:
        """``(B, p², side, side)`` → ``(B, 1, H, W)``."""
        return self.tokenizer.preview(latent)


def tokenizer_graphs(tokenizer: AnyTokenizer) -> dict[str, onnx.ModelProto]:
    """``encode``, ``decode``, one ``accumulate`` a scale and, where previews need no network, ``preview``."""
    config, side = tokenizer.config, tokenizer.schedule.latent_side
    channels = config.input_channels if isinstance(config, ResolutionConfig) else config.image_channels
    image = torch.zeros(2, channels, config.image_size, config.image_size)
    latent = torch.zeros(2, config.latent_channels, side, side)
    batch = {"latent": {0: "batch"}}
    graphs = {
        "encode.onnx": export_graph(EncodeGraph(tokenizer), {"image": image}, ["tokens"], {"image": {0: "batch"}}),
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


class PreviewGraph(nn.Module):
    """Latent → preview in [-1, 1], by the light decoder."""

    def __init__(self, preview: PreviewDecoder) -> None:
        super().__init__()
        self.preview = preview

    def forward(self, latent: Tensor) -> Tensor:
        """``(B, C, side, side)`` → ``(B, image channels, H, W)``."""
        return self.preview.decode(latent)


def preview_graph(preview: PreviewDecoder, side: int) -> onnx.ModelProto:
    """The light decoder, for latents of ``side``."""
    latent = torch.zeros(2, preview.config.latent_channels, side, side)
    return export_graph(PreviewGraph(preview), {"latent": latent}, ["image"], {"latent": {0: "batch"}})


def step_graph(transformer: Transformer) -> onnx.ModelProto:
    """The transformer, one scale at a time."""
    config, schedule = transformer.config, transformer.schedule
    if schedule.token_counts[0] != 1:
        raise ValueError("The exported step takes the first scale to be one token.")
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
    """Trace a module. ``dynamic`` says for each input which of its axes vary, by name; outputs are named in order."""
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
    # Where each operator was traced stands beside it: paths of whoever exports, which do not belong into a bundle.
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, e.g. that torchvision is not there, which nobody can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
