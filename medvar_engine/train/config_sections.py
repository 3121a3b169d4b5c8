"""The settings of a training run, in groups. `TrainConfig` combines all groups.

``docs/training_settings.py`` writes ``docs/reference/training-settings.md`` from them: run it after every change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AllowInfNan, BeforeValidator, Field, Strict
from pydantic.dataclasses import dataclass

from medvar_engine.untrusted.check_fields import number

MAX_SEED = 1_000_000  # so that seeds derived from it fit 64 bits

StageName = Literal["tokenizer", "transformer", "preview"]
Whole = Annotated[int, Strict()]
Number = Annotated[float, BeforeValidator(number), AllowInfNan(False)]
Switch = Annotated[bool, Strict()]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is trained, and for how long."""

    stage: Annotated[StageName, Field(description="what is trained")]
    data: Annotated[UserPath, Field(description="folder written by `medvar prepare`")]
    out: Annotated[UserPath, Field(description="folder of this run: checkpoints, logs, samples")]
    preset: Annotated[
        str, Field(description="type and size of the model: resolution, demo, small, d16, d20, d24 or d30")
    ] = "demo"
    tokenizer: Annotated[
        UserPath | None,
        Field(description="trained tokenizer (.safetensors); optional in stage tokenizer, required in the others"),
    ] = None
    steps: Annotated[Whole, Field(ge=1, description="number of training steps")] = 10_000
    batch_size: Annotated[Whole, Field(ge=1, description="slices per step, of all processes together")] = 32
    accumulate: Annotated[
        Whole, Field(ge=1, description="micro-batches into which the share of a process is divided")
    ] = 1
    optimizer: Annotated[
        Literal["adamw", "muon"], Field(description="muon: Muon for the matrices of the blocks, AdamW for the rest")
    ] = "adamw"
    learning_rate: Annotated[Number, Field(gt=0, description="highest learning rate, after the warm-up")] = 5e-4
    warmup: Annotated[Whole, Field(ge=0, description="steps of linear warm-up, followed by a cosine")] = 200
    final_learning_rate: Annotated[
        Number, Field(description="learning rate at the end, as a share of learning_rate")
    ] = 0.05
    weight_decay: Annotated[Number, Field(ge=0, description="weight decay of AdamW")] = 0.05
    beta2: Annotated[Number, Field(ge=0, lt=1, description="beta2 of AdamW; beta1 is 0.9")] = 0.95
    clip: Annotated[Number, Field(gt=0, description="largest norm of the gradient; larger ones are clipped")] = 2.0
    ema: Annotated[
        Number, Field(ge=0, le=1, description="decay of the averaged weights that are validated, sampled and exported")
    ] = 0.999
    shipped: Annotated[
        Literal["best", "last"],
        Field(description="checkpoint that becomes the model: the one with the lowest held-out loss, or the last"),
    ] = "best"
    patience: Annotated[
        Whole | None,
        Field(ge=1, description="stop after this number of validations without improvement; None runs all steps"),
    ] = None
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED, description="random seed")] = 0


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where the run computes. Apart from rounding, the result does not depend on it."""

    device: Annotated[str, Field(description="cpu, cuda, cuda:1 …; auto uses CUDA if it is available")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], Field(description="auto: bfloat16 if the hardware supports it")
    ] = "auto"
    threads: Annotated[Whole | None, Field(ge=1, description="CPU threads; None uses the default of torch")] = None
    workers: Annotated[
        Whole, Field(ge=0, description="processes that read batches in advance; 0 reads in the main process")
    ] = 0
    shard: Annotated[
        Switch,
        Field(description="distribute weights and optimiser over processes (FSDP2) instead of copying them (DDP)"),
    ] = False
    compile: Annotated[Switch, Field(description="torch.compile: takes minutes at the start, then faster steps")] = (
        False
    )
    recompute: Annotated[
        Switch, Field(description="compute activations again in the backward pass: less memory, more time")
    ] = False


@dataclass(frozen=True, kw_only=True)
class KeptSettings:
    """What is logged and stored."""

    log_every: Annotated[Whole, Field(ge=1, description="steps between rows of log.csv")] = 20
    validate_every: Annotated[Whole, Field(ge=1, description="steps between validations on held-out patients")] = 500
    validate_slices: Annotated[Whole, Field(ge=1, description="evenly spaced held-out slices in a validation")] = 256
    save_every: Annotated[
        Whole | None, Field(ge=1, description="steps between checkpoints; None uses validate_every")
    ] = None
    keep: Annotated[Whole, Field(ge=1, description="number of newest checkpoints to keep, in addition to the best")] = 2
    tensorboard: Annotated[Switch, Field(description="also write metrics and samples for TensorBoard")] = False


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which slices are in a batch, and how they are augmented."""

    augment: Annotated[Switch, Field(description="random augmentation of the slices")] = True
    balance: Annotated[
        Number,
        Field(
            ge=0,
            le=1,
            description="0: slice types are drawn in proportion to what their slices count; 1: equally often",
        ),
    ] = 0.5
    most_repeats: Annotated[
        Number,
        Field(
            ge=1,
            description="how much more often a slice of a rare type or patient is drawn than a common one, at most",
        ),
    ] = 8.0
    patient_balance: Annotated[
        Number,
        Field(ge=0, le=1, description="in a slice type, 0: every slice counts the same; 1: every patient does"),
    ] = 0.0
    central: Annotated[
        Number,
        Field(
            gt=0,
            le=1,
            description="central share of each scan from which training draws; single slices are always used",
        ),
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Stage ``tokenizer``. Values of losses are their weights."""

    image_size: Annotated[Whole | None, Field(description="pixels per side; None uses the preset")] = None
    masks: Annotated[
        Switch, Field(description="preset resolution: train on the masks of the slices together with their images")
    ] = False
    mask_loss: Annotated[Number, Field(description="loss: cross-entropy and Dice of masks")] = 1.0
    l1: Annotated[Number, Field(description="loss: absolute difference; also in stage preview")] = 1.0
    l2: Annotated[Number, Field(description="loss: squared difference")] = 1.0
    log_l2: Annotated[Number, Field(description="loss: logarithm of the squared difference of each image")] = 0.0
    gradient: Annotated[
        Number, Field(description="loss: differences between neighbouring pixels; also in stage preview")
    ] = 1.0
    texture: Annotated[
        Number, Field(description="loss: strength of fine detail; above 0, preset resolution learns to add grain")
    ] = 0.0
    perceptual: Annotated[Number, Field(description="loss: difference of features; needs feature_network")] = 0.0
    feature_network: Annotated[
        UserPath | None,
        Field(description="simclr.safetensors of medvar evaluate images, or a VGG; also measures held-out slices"),
    ] = None
    codebook_learning: Annotated[
        Literal["average", "gradient"],
        Field(description="codes are moving averages of their inputs, or are trained by the loss"),
    ] = "average"
    codebook: Annotated[Number, Field(description="loss: distance between latents and their codes")] = 1.0
    adversarial: Annotated[Number, Field(description="loss: patch discriminator; 0 switches it off")] = 0.0
    adversarial_start: Annotated[
        Number, Field(ge=0, le=1, description="share of the run after which the discriminator is used")
    ] = 0.5
    random_depth: Annotated[
        Number, Field(ge=0, le=1, description="share of images decoded from their first few scales only")
    ] = 0.1
    decoder_only: Annotated[
        Switch, Field(description="train only the decoder; tokens do not change, so transformers stay valid")
    ] = False
    continuous: Annotated[
        Number, Field(ge=0, le=1, description="share of the run over which quantisation is faded in")
    ] = 0.15
    restart_every: Annotated[Whole, Field(ge=1, description="steps between restarts of dead codes")] = 50
    restart_until: Annotated[
        Number, Field(ge=0, le=1, description="share of the run after which no code is restarted")
    ] = 0.7
    critic_learning_rate: Annotated[
        Number, Field(gt=0, description="learning rate of the patch discriminator, constant")
    ] = 2e-4
    draw_with: Annotated[
        UserPath | None,
        Field(description="preset resolution: transformer that draws tokens for the training of the refiner"),
    ] = None
    drawn_scales: Annotated[
        Whole, Field(ge=1, description="with draw_with: number of finest scales that are drawn")
    ] = 3
    draw_guidance: Annotated[
        Number, Field(description="with draw_with: strength of guidance of the draws, the same at every scale")
    ] = 0.0
    draw_guide: Annotated[
        UserPath | None,
        Field(
            description="with draw_with: weaker transformer that guidance moves away from; without it, guidance is "
            "classifier-free"
        ),
    ] = None
    draw_top_k: Annotated[
        Whole, Field(description="with draw_with: number of likeliest tokens that are drawn from; 0 is all")
    ] = 200
    draw_top_p: Annotated[
        Number, Field(gt=0, le=1, description="with draw_with: probability of the likeliest tokens that are drawn from")
    ] = 0.95


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Stage ``transformer``."""

    factors: Annotated[tuple[str, ...], Field(description="factors of the condition")] = ("modality", "region", "plane")
    scale_balance: Annotated[
        Number,
        Field(
            ge=0, le=1, description="share of the loss with equal weight per scale; the rest has equal weight per token"
        ),
    ] = 0.35
    coarse_slices: Annotated[
        Whole,
        Field(
            ge=0,
            description="number of further slices of each step from which only the two coarsest scales are learned; "
            "they have few tokens, but determine what an image shows",
        ),
    ] = 0
    depth: Annotated[
        Whole | None, Field(ge=1, description="number of blocks; None, here and below, uses the preset")
    ] = None
    width: Annotated[Whole | None, Field(ge=1, description="channels, a multiple of heads")] = None
    heads: Annotated[Whole | None, Field(ge=1, description="number of attention heads")] = None
    dropout: Annotated[Number | None, Field(ge=0, lt=1, description="dropout rate")] = None
    variants: Annotated[
        Whole, Field(ge=1, description="number of augmented copies of each slice that are encoded once")
    ] = 4
    pyramids: Annotated[
        UserPath | None,
        Field(description="pyramids of latents: folder written by `medvar encode`; None encodes at the start"),
    ] = None
    corruption: Annotated[
        Number,
        Field(
            ge=0,
            le=1,
            description="largest share of input tokens that are replaced at random, so that errors are corrected",
        ),
    ] = 0.0
    z_loss: Annotated[
        Number, Field(ge=0, description="weight of the squared logarithm of the softmax sum, which keeps logits small")
    ] = 0.0
    init: Annotated[UserPath | None, Field(description="trained transformer (.safetensors) to start from")] = None
    lora_rank: Annotated[
        Whole, Field(ge=0, description="with init: rank of trained low-rank changes; 0 trains all weights")
    ] = 0
