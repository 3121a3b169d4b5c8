"""How much faster is next-scale prediction than diffusion in the same latent space, with as many parameters?

    python benchmarks/generate_diffusion.py [--weights TOKENIZER TRANSFORMER] [--steps 50]

The peer is MONAI's ``DiffusionModelUNet`` with its ``DDIMScheduler``: random weights, as many parameters as the
transformer as near as a width gives, the latent of the tokenizer, 50 steps, and then the tokenizer's own decoder.
Guidance sends every step through the network twice, in one batch; both are measured with it and without. Both in
torch, on the same threads, in turns; medians of the ratios. Without ``--weights`` ours is the demo preset with random
ones, which cost what trained ones cost. Needs monai.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import torch
from generate import demo_weights, image, in_turns, row, seconds, title
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import nn

from medvar_engine.backends.torch import TorchBackend
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.weight_files import load_tokenizer, load_transformer
from medvar_engine.request import Sampling

GUIDANCE = 1.5  # of the diffusion; it costs the same whatever it is


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, nargs=2, help="tokenizer.safetensors and transformer.safetensors")
    parser.add_argument("--steps", type=int, default=50, help="of DDIM (default 50)")
    parser.add_argument("--repeats", type=int, default=3, help="of which the median is given (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = options.weights or demo_weights(Path(folder))
        tokenizer, (transformer, labels) = load_tokenizer(paths[0]), load_transformer(paths[1])
    backend = TorchBackend(tokenizer, transformer, labels)
    wanted = parameters(transformer)
    network = closest(tokenizer.config.latent_channels, wanted)
    title(f"{tokenizer.config.image_size} pixels, {wanted / 1e6:.1f} M parameters of the transformer")
    row("parameters of the U-Net", f"{parameters(network) / 1e6:.1f} M", f"{parameters(network) / wanted:.2f} of that")
    for guided in (True, False):
        sampling = Sampling() if guided else Sampling(guidance=0.0)
        taken = in_turns(
            {
                "ours": lambda sampling=sampling: image(backend, sampling=sampling),  # type: ignore[misc]
                "diffusion": lambda guided=guided: diffuse(network, tokenizer, options.steps, guided),  # type: ignore[misc]
            },
            options.repeats,
        )
        ratios = sorted(theirs / ours for ours, theirs in zip(taken["ours"], taken["diffusion"], strict=True))
        title("with guidance" if guided else "without guidance")
        row("one image, ours in torch", seconds(median(taken["ours"])))
        row(f"one image, {options.steps} steps of DDIM", seconds(median(taken["diffusion"])))
        row("ours is faster by", f"{median(ratios):.1f} ×", f"{ratios[0]:.1f} to {ratios[-1]:.1f}")


@torch.inference_mode()
def diffuse(network: nn.Module, tokenizer: Tokenizer, steps: int, guided: bool) -> None:
    """One image, from noise to pixels."""
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    scheduler.set_timesteps(steps)
    side = tokenizer.schedule.latent_side
    latent = torch.randn(1, tokenizer.config.latent_channels, side, side)
    for step in scheduler.timesteps:
        rows = latent.repeat(2, 1, 1, 1) if guided else latent  # with the condition, and without
        noise = network(rows, timesteps=step.repeat(len(rows)))
        if guided:
            with_condition, without = noise.chunk(2)
            noise = without + GUIDANCE * (with_condition - without)
        latent, _ = scheduler.step(noise, step, latent)
    tokenizer.decode(latent)


def closest(channels: int, wanted: int) -> DiffusionModelUNet:
    """The U-Net of three levels, with attention in the two coarser ones, whose width comes nearest."""
    with torch.device("meta"):
        width = min(range(32, 513, 16), key=lambda width: abs(parameters(unet(channels, width)) - wanted))
    return unet(channels, width).eval()


def unet(channels: int, width: int) -> DiffusionModelUNet:
    """One of MONAI's, in the proportions of its own latent diffusion examples."""
    return DiffusionModelUNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=channels,
        num_res_blocks=2,
        channels=(width, 2 * width, 2 * width),
        attention_levels=(False, True, True),
        num_head_channels=(0, 2 * width, 2 * width),
        norm_num_groups=16,
    )


def parameters(network: nn.Module) -> int:
    """How many numbers it has learnt."""
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
