"""Estimates the cost of a run before it starts, from tensors without data, so in seconds for any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.presets import tokenizer_preset, with_masks
from medvar_engine.models.pretrained import start_transformer
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_tokenizer, load_transformer
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.stages.token_sources import COARSE
from medvar_engine.train.stages.tokenizer_stage import keep_tokens
from medvar_engine.train.stages.transformer_stage import fresh_shape, label_space_of

_BYTES_KEPT = 8  # per weight, in float32: the weight and its moving average
_BYTES_LEARNT = 12  # additional bytes per trainable weight: its gradient and AdamW's two moments


@dataclass(frozen=True, slots=True)
class RunCost:
    """The cost of a run, without a discriminator and a feature network."""

    slices: int
    parameters: int
    learning: int  # trainable parameters; the others are frozen
    flops: float  # floating-point operations per step, forward and backward, for the whole batch
    weight_bytes: int  # weights, gradients, optimiser and average
    activation_bytes: int  # activations of one micro-batch in float32; fused attention needs less
    steps: int
    batch_size: int  # without ``coarse_slices``

    def hours(self, tflops: float) -> float:
        """The duration of all steps at ``tflops`` · 10¹² operations per second, the real speed of the machine."""
        return self.flops * self.steps / (tflops * 1e12) / 3600

    def describe(self, tflops: float | None = None) -> str:
        """The cost as text, with the duration if the speed is given."""
        seen = self.steps * self.batch_size
        hours = "" if tflops is None else f"\n{self.hours(tflops):.3g} hours at {tflops:g} TFLOP/s"
        learning = f", of which {self.learning / 1e6:.2f} M are trained" if self.learning < self.parameters else ""
        return (
            f"{self.parameters / 1e6:.1f} M parameters{learning}, {self.slices} training slices, each seen "
            f"{seen / self.slices:.1f} times in {self.steps} steps of {self.batch_size}\n"
            f"{self.flops / 1e12:.3g} TFLOP per step\n"
            f"about {(self.weight_bytes + self.activation_bytes) / 2**30:.2f} GiB: {self.weight_bytes / 2**30:.2f} for "
            f"weights, gradients, optimiser and average, "
            f"at most {self.activation_bytes / 2**30:.2f} for activations in float32{hours}"
        )


def plan(config: TrainConfig, processes: int = 1) -> RunCost:
    """Estimate the cost of a run on ``processes``. Raises `MedvarError` for data or a tokenizer that do not fit."""
    if config.stage == "preview":
        raise MedvarError("The cost of stage preview is not estimated: training a light decoder takes minutes.")
    data = SliceDataset(config.data, split="train")
    images = config.batch_size // (processes * config.accumulate)
    if images < 1:
        raise MedvarError(
            f"batch_size {config.batch_size} is less than {processes} processes × {config.accumulate} (accumulate)."
        )
    with torch.device("meta"):
        model, forward = _of_stage(config, data, images)
        with FlopCounterMode(display=False) as counter:
            kept, output = _kept_for_backward(model, forward)
            output.sum().backward()
    parameters = sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return RunCost(
        slices=len(data),
        parameters=parameters,
        learning=learning,
        flops=counter.get_total_flops() * config.batch_size / images,
        weight_bytes=(parameters * _BYTES_KEPT + learning * _BYTES_LEARNT) // (processes if config.shard else 1),
        activation_bytes=kept,
        steps=config.steps,
        batch_size=config.batch_size,
    )


def _of_stage(config: TrainConfig, data: SliceDataset, images: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The model of a stage, with the same trainable weights as in the run, and its forward pass on ``images``."""
    shape: TokenizerConfig | ResolutionConfig
    if config.tokenizer is not None:
        own = load_tokenizer(config.tokenizer).config
        shape = own if isinstance(own, ResolutionConfig) else replace(own, image_channels=1)
    else:
        shape = tokenizer_preset(config.preset, config.image_size)
        if config.masks and isinstance(shape, ResolutionConfig):
            shape = with_masks(shape, data.structures)
    if config.stage != "transformer":
        if isinstance(shape, ResolutionConfig):
            return _refiner(replace(shape, grain=shape.grain or config.texture > 0), images)
        tokenizer = Tokenizer(shape)
        tokenizer.quantizer.codebook.requires_grad_(
            True
        )  # updated by moving averages, which need as much memory as gradients
        if config.decoder_only:
            keep_tokens(tokenizer)
        image = torch.empty(images, 1, shape.image_size, shape.image_size)
        return tokenizer, lambda: tokenizer.decode(tokenizer.quantizer(tokenizer.latent(image)).latent)
    transformer = _transformer(config, shape, data)
    transformer.recompute = config.recompute
    further = config.coarse_slices * images // config.batch_size
    groups = [(images, len(transformer.schedule)), (further, min(COARSE, len(transformer.schedule)))]

    def taught(count: int, scales: int) -> Tensor:
        labels = torch.empty(count, len(transformer.config.labels), dtype=torch.int64)
        tokens = transformer.schedule.offsets[scales] - transformer.schedule.token_counts[0]
        logits: Tensor = transformer(labels, torch.empty(count, tokens, shape.feature_channels))
        return logits.flatten()

    return transformer, lambda: torch.cat([taught(count, scales) for count, scales in groups if count])


def _refiner(shape: ResolutionConfig, images: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    tokenizer = ResolutionTokenizer(shape).to("meta")  # constants too
    canvas = torch.empty(images, shape.latent_channels, shape.schedule[-1], shape.schedule[-1])
    return tokenizer, lambda: tokenizer(canvas)


def _transformer(config: TrainConfig, tokenizer: TokenizerConfig | ResolutionConfig, data: SliceDataset) -> Transformer:
    """The transformer as `TransformerStage` creates it, without data in its weights."""
    labels = label_space_of(config, data.conditions.distinct)
    if config.init is None:
        return Transformer(fresh_shape(config, tokenizer, labels.sizes))
    with torch.device("cpu"):
        base, known = load_transformer(config.init)
    return start_transformer(base.to("meta"), known, labels, config.lora_rank, dropout=config.dropout)


def _kept_for_backward(model: nn.Module, forward: Callable[[], Tensor]) -> tuple[int, Tensor]:
    """Bytes that a forward pass stores for the backward pass, without the weights, and its result.

    Each storage is counted once.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes(), tensor  # the reference keeps the id of the storage unique
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    return sum(size for size, _ in kept.values()), output
