"""How much longer does an image with its mask take than an image alone?

    python benchmarks/generate_pairs.py [--structures 2 10] [--depth 4 --width 128] [--repeats 15] [--batch 8]

Exports the tokenizer preset of 128 pixels, without masks and with masks of each number of structures, and transformers
of equal depth and width with random weights, which cost as much as trained ones. Measures CPU time, which depends less
than elapsed time on other work of the machine: of one image, and of each image of a batch, with guidance, all in turns.
Prints the median of the ratios to the image alone, and the share of tokens. The defaults are the recipe's transformer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from generate import LABELS, export, named, row, seconds, title

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.generate.finished_pairs import finished_pairs
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.masks.structures import structures_of
from medvar_engine.models.presets import RESOLUTION_TOKENIZERS, with_masks
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import save_tokenizer, save_transformer
from medvar_engine.request import Sampling

SAMPLING = Sampling(guidance=1.5, top_k=100, top_p=0.85, coarse_guidance=1.0)
PIXELS = 128


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, nargs="+", default=[2, 10], help="of masks (default 2 and 10)")
    parser.add_argument("--depth", type=int, default=4, help="of the transformer (default 4)")
    parser.add_argument("--width", type=int, default=128, help="of the transformer, a multiple of 64 (default 128)")
    parser.add_argument("--repeats", type=int, default=15, help="measurements of one image (default 15)")
    parser.add_argument("--batch", type=int, default=8, help="images at once (default 8)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        measure(
            {
                count: backend(Path(folder) / f"{count} structures", count, options)
                for count in (0, *options.structures)
            },
            options,
        )


def measure(backends: dict[int, OnnxBackend], options: argparse.Namespace) -> None:
    """Time of images alone, which have no structures, and of pairs."""
    for batch, repeats in ((1, options.repeats), (options.batch, max(3, options.repeats // options.batch))):
        title(f"{PIXELS} pixels, {batch} at once, with guidance: CPU time of each")
        taken: dict[int, list[float]] = {count: [] for count in backends}
        for repeat in range(repeats + 1):
            for count, one in backends.items():
                used = cpu_time(one, batch, repeat)
                taken[count] += [used] * (repeat > 0)  # the first is slower
        row("image alone", seconds(median(taken[0])))
        for count in options.structures:
            ratios = sorted(own / alone for own, alone in zip(taken[count], taken[0], strict=True))
            tokens = backends[count].info.schedule.tokens / backends[0].info.schedule.tokens
            note = f"{median(ratios):.2f} times as long ({ratios[0]:.2f} to {ratios[-1]:.2f}); tokens {tokens:.2f}"
            row(f"image and mask of {count} structures", seconds(median(taken[count])), note)


def backend(folder: Path, structures: int, options: argparse.Namespace) -> OnnxBackend:
    """The exported model with random weights, for masks of some structures or, if there are none, for images alone."""
    torch.manual_seed(0)
    config = RESOLUTION_TOKENIZERS[PIXELS]
    if structures:
        config = with_masks(config, structures_of([f"structure {i}" for i in range(structures)]))
    shape = TransformerConfig(
        config.schedule,
        config.vocabulary,
        config.feature_channels,
        LABELS.sizes,
        depth=options.depth,
        width=options.width,
        heads=options.width // 64,
        shared_modulation=True,
    )
    folder.mkdir()
    weights = folder / "tokenizer.safetensors", folder / "transformer.safetensors"
    save_tokenizer(weights[0], ResolutionTokenizer(config))
    save_transformer(weights[1], Transformer(shape), LABELS)
    return OnnxBackend(read_bundle(export(weights, folder / "bundle")), device="cpu", threads=options.threads)


def cpu_time(backend: OnnxBackend, batch: int, seed: int) -> float:
    """Seconds that all threads take for each image of a batch, by a generator that has seen none before."""
    generator = Generator(backend)
    requests = [Request(named(backend.info.labels), seed * batch + i, SAMPLING) for i in range(batch)]
    begin = time.process_time()
    finished_pairs(generator, generator.finish(generator.start(requests)))
    return (time.process_time() - begin) / batch


if __name__ == "__main__":
    main()
