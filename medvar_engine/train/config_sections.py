"""The settings of a training run, in groups. `TrainConfig` combines all groups.

The comment beside each setting is its meaning in ``docs/reference/training-settings.md``; run ``docs/settings.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

StageName = Literal["tokenizer", "transformer", "preview"]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is trained, and for how long."""

    stage: StageName  # what is trained
    data: Path  # folder written by `medvar prepare`
    out: Path  # folder of this run: checkpoints, logs, samples
    preset: str = "demo"  # type and size of the model: resolution, demo, small, d16, d20, d24 or d30
    tokenizer: Path | None = (
        None  # trained tokenizer (.safetensors); optional in stage tokenizer, required in the others
    )

    steps: int = 10_000  # number of training steps
    batch_size: int = 32  # slices per step, of all processes together
    accumulate: int = 1  # micro-batches into which the share of a process is divided
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: Muon for the matrices of the blocks, AdamW for the rest
    learning_rate: float = 5e-4  # highest learning rate, after the warm-up
    warmup: int = 200  # steps of linear warm-up, followed by a cosine
    final_learning_rate: float = 0.05  # learning rate at the end, as a share of learning_rate
    weight_decay: float = 0.05  # weight decay of AdamW
    beta2: float = 0.95  # beta2 of AdamW; beta1 is 0.9
    clip: float = 2.0  # largest norm of the gradient; larger ones are clipped
    ema: float = 0.999  # decay of the averaged weights that are validated, sampled and exported
    shipped: Literal["best", "last"] = (
        "best"  # checkpoint that becomes the model: the one with the lowest held-out loss, or the last
    )
    patience: int | None = None  # stop after this number of validations without improvement; None runs all steps
    seed: int = 0  # random seed


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where the run computes. Apart from rounding, the result does not depend on it."""

    device: str = "auto"  # cpu, cuda, cuda:1 …; auto uses CUDA if it is available
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 if the hardware supports it
    threads: int | None = None  # CPU threads; None uses the default of torch
    workers: int = 0  # processes that read batches in advance; 0 reads in the main process
    shard: bool = False  # distribute weights and optimiser over processes (FSDP2) instead of copying them (DDP)
    compile: bool = False  # torch.compile: takes minutes at the start, then faster steps
    recompute: bool = False  # compute activations again in the backward pass: less memory, more time


@dataclass(frozen=True, kw_only=True)
class KeptSettings:
    """What is logged and stored."""

    log_every: int = 20  # steps between rows of log.csv
    validate_every: int = 500  # steps between validations on held-out patients
    validate_slices: int = 256  # evenly spaced held-out slices in a validation
    save_every: int | None = None  # steps between checkpoints; None uses validate_every
    keep: int = 2  # number of newest checkpoints to keep, in addition to the best
    tensorboard: bool = False  # also write metrics and samples for TensorBoard


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which slices are in a batch, and how they are augmented."""

    augment: bool = True  # random augmentation of the slices
    balance: float = 0.5  # 0: equal probability for every slice; 1: for every slice type
    most_repeats: float = 8.0  # how much more often a slice of a rare type is drawn than a common one, at most


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Stage ``tokenizer``. Values of losses are their weights."""

    image_size: int | None = None  # pixels per side; None uses the preset
    masks: bool = False  # preset resolution: train on the masks of the slices together with their images
    mask_loss: float = 1.0  # loss: cross-entropy and Dice of masks
    l1: float = 1.0  # loss: absolute difference; also in stage preview
    l2: float = 1.0  # loss: squared difference
    gradient: float = 1.0  # loss: differences between neighbouring pixels; also in stage preview
    frequency: float = 0.0  # loss: Fourier coefficients, for fine texture
    texture: float = 0.0  # loss: local strength of fine detail; above 0, preset resolution learns to add grain
    perceptual: float = 0.0  # loss: difference of features; needs feature_network
    feature_network: Path | None = (
        None  # encoder of medvar gate, or a VGG (.safetensors); also measures held-out slices
    )
    codebook_learning: Literal["average", "gradient"] = (
        "average"  # codes are moving averages of their inputs, or are trained by the loss
    )
    codebook: float = 1.0  # loss: distance between latents and their codes
    adversarial: float = 0.0  # loss: patch discriminator; 0 switches it off
    adversarial_start: float = 0.5  # share of the run after which the discriminator is used
    random_depth: float = 0.1  # share of images decoded from their first few scales only
    decoder_only: bool = False  # train only the decoder; tokens do not change, so transformers stay valid
    continuous: float = 0.15  # share of the run over which quantisation is faded in
    restart_every: int = 50  # steps between restarts of dead codes
    restart_until: float = 0.7  # share of the run after which no code is restarted
    critic_learning_rate: float = 2e-4  # learning rate of the patch discriminator, constant
    draw_with: Path | None = None  # preset resolution: transformer that draws tokens for the training of the refiner
    drawn_scales: int = 3  # with draw_with: number of finest scales that are drawn


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Stage ``transformer``."""

    factors: tuple[str, ...] = ("modality", "region", "plane")  # factors of the condition
    scale_balance: float = 0.35  # share of the loss with equal weight per scale; the rest has equal weight per token
    depth: int | None = None  # number of blocks; None, here and below, uses the preset
    width: int | None = None  # channels, a multiple of heads
    heads: int | None = None  # number of attention heads
    dropout: float | None = None  # dropout rate
    variants: int = 4  # number of augmented copies of each slice that are encoded once
    pyramids: Path | None = None  # folder written by `medvar encode`; None encodes at the start of the run
    corruption: float = 0.0  # largest share of input tokens that are replaced at random, so that errors are corrected
    z_loss: float = 0.0  # weight of the squared logarithm of the softmax sum, which keeps logits small
    init: Path | None = None  # trained transformer (.safetensors) to start from
    lora_rank: int = 0  # with init: rank of trained low-rank changes; 0 trains all weights
