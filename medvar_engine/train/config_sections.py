"""The settings of a training run, by what they are about. `TrainConfig` is all of them together.

The comment beside each is its meaning in ``docs/reference/training-settings.md``, which ``docs/settings.py`` writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

StageName = Literal["tokenizer", "transformer", "preview"]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is trained, how long and how fast."""

    stage: StageName  # what is trained
    data: Path  # folder written by `medvar prepare`
    out: Path  # folder of this run: checkpoints, logs, samples
    preset: str = "demo"  # kind and size of the model: resolution, demo, small, d16, d20, d24 or d30
    tokenizer: Path | None = (
        None  # trained tokenizer (.safetensors); stage tokenizer may go on with one, others need it
    )

    steps: int = 10_000  # batches to learn from
    batch_size: int = 32  # slices a step, of all processes together
    accumulate: int = 1  # parts of a process's share of the batch that go through the network one after the other
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: of the blocks' matrices; AdamW of all else
    learning_rate: float = 5e-4  # the highest, after the warm-up
    warmup: int = 200  # steps of linear warm-up; a cosine follows
    final_learning_rate: float = 0.05  # as a share of learning_rate
    weight_decay: float = 0.05  # of AdamW
    beta2: float = 0.95  # of AdamW; beta1 is 0.9
    clip: float = 2.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights that are validated, sampled and exported
    shipped: Literal["best", "last"] = "best"  # which checkpoint becomes the model: lowest held-out loss, or the end
    patience: int | None = None  # validations without a better held-out figure that end the run; None runs all steps
    seed: int = 0  # of all random numbers


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where it runs. What is learned does not depend on it, but for rounding."""

    device: str = "auto"  # cpu, cuda, cuda:1 …; auto takes CUDA when there
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the hardware has it
    threads: int | None = None  # of the CPU; None leaves torch's choice
    workers: int = 0  # processes that read the next batches meanwhile; 0 reads them in between
    shard: bool = False  # several processes: spread weights and optimiser over them (FSDP2) in place of copies (DDP)
    compile: bool = False  # torch.compile: minutes at the start, faster steps
    recompute: bool = False  # activations of the transformer's blocks anew in the backward pass: less memory, more time


@dataclass(frozen=True, kw_only=True)
class KeptSettings:
    """What is shown and kept."""

    log_every: int = 20  # steps between rows of log.csv
    validate_every: int = 500  # steps between looks at held-out patients
    validate_slices: int = 256  # held-out slices looked at, spread evenly
    save_every: int | None = None  # steps between checkpoints; None is validate_every
    keep: int = 2  # newest checkpoints kept, and beside them the best
    tensorboard: bool = False  # also write figures and samples for TensorBoard


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which slices a batch holds, and how they are changed."""

    augment: bool = True  # change slices a little, at random
    balance: float = 0.5  # 0: every slice alike; 1: every modality × region × plane alike
    most_repeats: float = 8.0  # how much more often a slice of a rare kind may be drawn than one of the commonest


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Stage ``tokenizer``; its losses are weights."""

    image_size: int | None = None  # pixels of a side; None is the preset's
    masks: bool = False  # preset resolution: learn the masks of the slices together with their images
    mask_loss: float = 1.0  # of cross-entropy and Dice of masks
    l1: float = 1.0  # of the absolute difference; stage preview has it, too
    l2: float = 1.0  # of the squared difference
    gradient: float = 1.0  # of differences between neighbouring pixels; stage preview has it, too
    frequency: float = 0.0  # of Fourier coefficients: fine texture
    texture: float = 0.0  # of the local strength of fine detail; above 0 tokenizers of resolutions learn to add grain
    perceptual: float = 0.0  # of the difference that a feature network sees; needs feature_network
    feature_network: Path | None = (
        None  # encoder of medvar gate, or a VGG (.safetensors); also measures held-out slices
    )
    codebook_learning: Literal["average", "gradient"] = "average"  # codes follow what chose them, or the loss
    codebook: float = 1.0  # of the distance between latents and their codes
    adversarial: float = 0.0  # of the patch discriminator; 0 switches it off
    adversarial_start: float = 0.5  # share of the run after which it joins
    random_depth: float = 0.1  # share of images decoded from their first few scales only
    decoder_only: bool = False  # improve the decoder of a trained tokenizer; tokens, and so transformers, stay valid
    continuous: float = 0.15  # share of the run over which quantisation is faded in
    restart_every: int = 50  # steps between restarts of dead codes
    restart_until: float = 0.7  # share of the run after which no code is restarted
    critic_learning_rate: float = 2e-4  # of the patch discriminator, constant
    draw_with: Path | None = None  # preset resolution: trained transformer whose draws the refiner learns to mend
    drawn_scales: int = 3  # with draw_with: how many of the finest scales it draws


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Stage ``transformer``."""

    factors: tuple[str, ...] = ("modality", "region", "plane")  # what the transformer is conditioned on
    scale_balance: float = 0.35  # share of the loss that counts every scale alike; the rest counts every token alike
    depth: int | None = None  # blocks; None, here and below, is the preset's
    width: int | None = None  # channels, a multiple of heads
    heads: int | None = None  # of the attention
    dropout: float | None = None  # share of activations left out at random
    variants: int = 4  # augmented copies of each slice that are encoded once
    pyramids: Path | None = None  # folder written by `medvar encode`; None encodes at the start, into out
    corruption: float = 0.0  # largest share of a scale's tokens that are replaced at random, for finer ones to mend
    z_loss: float = 0.0  # weight of the squared log of the softmax's sum, which keeps logits small
    init: Path | None = None  # trained transformer (.safetensors) to go on with
    lora_rank: int = 0  # with init: learn low-rank changes of its weights only; 0 learns all of them
