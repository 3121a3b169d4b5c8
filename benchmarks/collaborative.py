"""What does a small transformer for the fine scales save, and what does it cost?

    python benchmarks/collaborative.py [--weights TOKENIZER TRANSFORMER FINE] [--slices FOLDER] [--from-scale K …]

For each first fine scale: the operations of one image with guidance, transformer and all, and its time in ONNX Runtime
on the CPU, as shares of those that the large transformer needs alone. Times are taken in turns, and the median of their
ratios is given with the smallest and the largest. ``--slices`` are prepared slices that both transformers were trained
on: given, the loss of each on those held out is told scale by scale, and for both together. Without ``--weights`` both
are random, of the demo preset's shape and of half its width and three blocks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from generate import LABELS, demo_weights, image, in_turns, row, seconds, title
from torch.utils.flop_counter import FlopCounterMode

from medvar_engine.arrays import FloatArray
from medvar_engine.backends.base import Backend
from medvar_engine.backends.collaborative import CollaborativeBackend
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle import FINE, read_bundle
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.generator import Generator
from medvar_engine.models.files import load_transformer, save_transformer
from medvar_engine.models.transformer import Transformer
from medvar_engine.trace import Request
from medvar_export.fine import FineWeights
from medvar_export.write_bundle import Description, export_bundle

SLICES = 64
BATCH = 16
Weights = tuple[Path, Path, Path]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, nargs=3, help="tokenizer, transformer and small transformer")
    parser.add_argument("--slices", type=Path, help="prepared slices that both were trained on")
    parser.add_argument(
        "--from-scale", type=int, nargs="+", default=[5, 6, 7], help="first fine scales (default 5 6 7)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements of which the median is given (default 5)")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = tuple(options.weights) if options.weights else random_weights(Path(folder))
        operations(weights, options.from_scale)
        if options.slices:
            losses(weights, options.slices, options.from_scale)
        times(weights, Path(folder), options.from_scale, options.repeats, options.batch)


def random_weights(folder: Path) -> Weights:
    """The demo preset, and a small transformer beside it. They cost what trained ones cost."""
    tokenizer, transformer = demo_weights(folder)
    shape = load_transformer(transformer)[0].config
    save_transformer(folder / "fine.safetensors", Transformer(replace(shape, depth=3, width=shape.width // 2)), LABELS)
    return tokenizer, transformer, folder / "fine.safetensors"


def operations(weights: Weights, first_fine: list[int]) -> None:
    """Floating-point operations in products and convolutions."""
    large, small = TorchBackend.load(*weights[:2]), TorchBackend.load(weights[0], weights[2])
    side, channels = large.info.schedule.latent_side, large.info.latent_channels
    latent = np.zeros((1, channels, side, side), dtype=np.float32)
    decoding, alone = flops(lambda: large.decode(latent)), flops(lambda: image(large))
    title("Operations of one image with guidance")
    row("the large transformer alone, and the decoder", f"{alone / 1e9:.1f} GFLOP", f"{decoding / 1e9:.1f} to decode")
    for k in first_fine:
        backend = CollaborativeBackend(large, small, k)
        both = flops(partial(image, backend))
        shares = f"{both / alone:.2f} of it, {(both - decoding) / (alone - decoding):.2f} but for decoding"
        row(f"the small one from scale {k} on", f"{both / 1e9:.1f} GFLOP", shares)


def flops(call: Callable[[], object]) -> int:
    """Of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def losses(weights: Weights, slices: Path, first_fine: list[int]) -> None:
    """Nats a token on slices of people that were not trained on, each scale by the tokens before it."""
    large, small = TorchBackend.load(*weights[:2]), TorchBackend.load(weights[0], weights[2])
    data = SliceDataset(slices, split="test")
    chosen = np.linspace(0, len(data) - 1, SLICES).astype(np.int64)
    conditions = [large.info.labels.known(data[int(i)][1]) for i in chosen]
    requests, images = [Request(condition) for condition in conditions], data.batch(chosen)[:, 0]
    each = [nats(backend, images, requests) for backend in (large, small)]
    counts = np.array(large.info.schedule.token_counts)
    title(f"Loss on {SLICES} slices held out, nats a token")
    for k, own in enumerate(zip(*each, strict=True)):
        row(f"scale {k}, {counts[k]} tokens", f"{own[0]:.3f}", f"the small one {own[1]:.3f}")
    row("all scales by the large transformer", f"{np.average(each[0], weights=counts):.3f}")
    for k in first_fine:
        both = np.average([*each[0][:k], *each[1][k:]], weights=counts)
        row(f"the small one from scale {k} on", f"{both:.3f}")


def nats(backend: Backend, images: FloatArray, requests: list[Request]) -> list[float]:
    """The mean of every scale."""
    generator, sums = Generator(backend), np.zeros(len(backend.info.schedule))
    for first in range(0, len(requests), BATCH):
        part = slice(first, first + BATCH)
        bits = generator.likelihood(generator.encode(images[part], requests[part]))
        sums += [own.mean() * len(own) * np.log(2) for own in bits]
    return list(sums / len(requests))


def times(weights: Weights, folder: Path, first_fine: list[int], repeats: int, batch: int) -> None:
    """One image, or some at once, in ONNX Runtime."""
    about = Description("both", "none", (), "nobody", "")
    fine = FineWeights(weights[2], first_fine[0])
    export_bundle(*weights[:2], folder / "both", about, fine=fine, tell=lambda _: None)
    bundle = read_bundle(folder / "both")
    large, small = OnnxBackend(bundle, device="cpu"), OnnxBackend(bundle, device="cpu", graph=FINE)
    backends: dict[str, Backend] = {"the large transformer alone": large}
    backends |= {f"the small one from scale {k} on": CollaborativeBackend(large, small, k) for k in first_fine}
    taken = in_turns({name: partial(image, own, batch) for name, own in backends.items()}, repeats)
    alone = taken["the large transformer alone"]
    title(f"Time of {batch} image(s) with guidance, {large.info.provider}")
    for name, own in taken.items():
        ratios = sorted(a / b for a, b in zip(own, alone, strict=True))
        spread = f"{median(ratios):.2f} of it ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        row(name, seconds(median(own)), spread if own is not alone else "")


if __name__ == "__main__":
    main()
