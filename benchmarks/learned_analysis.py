"""Does a learned analysis and synthesis make better tokens than linear ones? Trains both from the same patches.

    python benchmarks/learned_analysis.py SLICES TOKENIZER [--minutes 40] [--held-out 200]

The shipped tokenizer of resolutions cuts residuals into blocks, takes the nearest patch, and adds it to the canvas.
Here each scale gets two small convolutional networks that see the canvas of the coarser scales: one changes the
residual before the nearest patch is searched, and one changes what the patches add to the canvas. Both begin as no
change. They and the patches are trained for ``--minutes`` on augmented slices. The patches alone are trained for as
long, too.

Rows are those of `benchmarks/token_codebooks.py`, without the refiner.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from token_codebooks import judge
from torch import Tensor, nn

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer, ResolutionTokenizer
from medvar_engine.models.weight_files import load_tokenizer
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import in_hounsfield, spread

WIDTH = 12  # channels of a network
BATCH = 8
RATE = 1e-3
COMMITMENT = 0.25  # weight of the distance between a vector and its patch, as in VQ-VAE (arXiv 1711.00937)


def main() -> None:
    """Print a row for the given patches, for trained patches, and for trained patches with networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--held-out", type=int, default=200)
    options = parser.parse_args()
    training, held_out = (SliceDataset(options.slices, split) for split in ("train", "test"))
    images = torch.from_numpy(training.batch(spread(len(training), 500)))
    real = torch.from_numpy(held_out.batch(spread(len(held_out), options.held_out)))
    given = load_tokenizer(options.tokenizer)
    assert isinstance(given, ResolutionTokenizer)
    print(f"codes | {' | '.join(map(str, given.schedule))} | finest drawn blindly | neighbours' R²")
    judge("given patches", given, images, real, refined=False)
    for name, learned in (("trained patches", False), ("learned analysis and synthesis", True)):
        torch.manual_seed(0)
        model = ResolutionTokenizer(given.config)
        model.quantizer = quantizer = Trained(given, learned=learned)
        steps = train(quantizer, model, training, 60 * options.minutes)
        judge(f"{name}, {steps} steps", model.eval(), images, real, refined=False)


class Trained(ResolutionQuantizer):
    """A quantiser whose patches are trained, optionally with networks before and after them."""

    def __init__(self, given: ResolutionTokenizer, *, learned: bool) -> None:
        super().__init__(given.config)
        self.load_state_dict(given.quantizer.state_dict())
        self.learned = learned
        scales = range(len(self.schedule))
        self.codes_of_scale = nn.ParameterList(given.quantizer.patches(k).clone() for k in scales)
        self.analysis = nn.ModuleList(_network() for _ in scales)
        self.synthesis = nn.ModuleList(_network() for _ in scales)

    def patches(self, k: int) -> Tensor:
        """The patches of scale k, which are trained."""
        return self.codes_of_scale[k]

    def encode(self, canvas: Tensor) -> tuple[Tensor, ...]:
        """See `ResolutionQuantizer`."""
        return self.steps(canvas)[0]

    def decode(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """See `ResolutionQuantizer`."""
        so_far = tokens[0].new_zeros((len(tokens[0]), self.channels, *(self.schedule.latent_side,) * 2)).float()
        for k, token_map in enumerate(tokens):
            so_far = so_far + self.added(self.patches(k)[token_map], so_far, k)
        return so_far

    def steps(self, canvas: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Token maps, and the sum of the losses of all scales; gradients pass the choice of a patch unchanged."""
        so_far, loss, tokens = torch.zeros_like(canvas), canvas.new_zeros(()), []
        for k in range(len(self.schedule)):
            vectors = self.vectors(canvas - so_far, so_far, k)
            tokens.append(self.nearest(vectors.detach(), k))
            codes = self.patches(k)[tokens[-1]]
            loss = loss + F.mse_loss(codes, vectors.detach()) + COMMITMENT * F.mse_loss(vectors, codes.detach())
            so_far = so_far + self.added(vectors + (codes - vectors).detach(), so_far, k)
            loss = loss + F.mse_loss(self.shrink(so_far, k), self.shrink(canvas, k))
        return tuple(tokens), loss + F.mse_loss(so_far, canvas)

    def vectors(self, rest: Tensor, so_far: Tensor, k: int) -> Tensor:
        """What is left at scale k ``(B, L_k, p²)``, changed by the network of the analysis."""
        return self.changed(self.residual(rest, k), so_far, k, self.analysis[k])

    def added(self, blocks: Tensor, so_far: Tensor, k: int) -> Tensor:
        """What codes ``(B, L_k, p²)`` add to the canvas, changed by the network of the synthesis."""
        return self.lift_blocks(self.changed(blocks, so_far, k, self.synthesis[k]), k)

    def changed(self, blocks: Tensor, so_far: Tensor, k: int, network: nn.Module) -> Tensor:
        """Blocks of scale k and what a network that sees the canvas so far adds to them; unchanged without networks."""
        if not self.learned:
            return blocks
        side = self.schedule[k]
        image = F.pixel_shuffle(blocks.transpose(1, 2).unflatten(2, (side, side)), self.patch)
        added = network(torch.cat((image, self.shrink(so_far, k)), 1))
        return blocks + F.pixel_unshuffle(added, self.patch).flatten(2).transpose(1, 2)


def _network() -> nn.Sequential:
    """Three convolutions that see 3 pixels around each pixel; their output is zero at first."""
    last = nn.Conv2d(WIDTH, 1, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(
        nn.Conv2d(2, WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.SiLU(), last
    )


def train(quantizer: Trained, model: ResolutionTokenizer, data: SliceDataset, seconds: float) -> int:
    """Train for a time, with a rate that falls linearly to zero; returns the number of steps."""
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=RATE)
    rng, until, step = np.random.default_rng(0), time.monotonic() + seconds, 0
    while (left := until - time.monotonic()) > 0:
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, left / seconds)
        chosen = rng.integers(len(data), size=BATCH)
        images = augment(torch.from_numpy(data.batch(chosen)), torch.from_numpy(in_hounsfield(data, chosen)))
        loss = quantizer.steps(model.latent(images))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    return step


if __name__ == "__main__":
    main()
