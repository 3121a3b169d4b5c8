"""How much of an earlier revision's time does a step of training take now? At demo size, on the CPU.

    python benchmarks/train_step_revision.py [--against REF] [--steps 12] [--rounds 3]

The earlier revision is read from git; by default it is the last one before the pyramid of resolutions. Each trains by
its own recipe, on the same slices of noise, with batches of 16; the earlier transformer on all scales in every step, as
ours does. Both run in turn, several rounds, in one thread each. Times are of the processor, so that they mean something
on a busy machine, too: medians of steps of all rounds after the first half, in which torch compiles. Wanted: at most
0.4 for the transformer, 0.6 for the tokenizer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from train_step import write_slices

from medvar_engine.metric_log import Metric, read_log
from medvar_engine.models.presets import tokenizer_preset
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.weight_files import save_tokenizer

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "2450db2"  # the last revision whose models were pyramids of latents only
RECIPES = {  # of each stage: the file and what differs from it; before and now
    "transformer": (("demo-transformer.toml", ("short=0", "variants=1")), ("transformer.toml", ("coarse_slices=0",))),
    "tokenizer": (("demo-tokenizer.toml", ()), ("tokenizer.toml", ())),
}
WANTED = {"transformer": 0.4, "tokenizer": 0.6}
BATCH = 16
# The log's speed is by the clock of `time.monotonic`; here that is the processor's.
RUN = "import time; time.monotonic = time.process_time; from medvar_engine.train.__main__ import main; main()"


def main() -> None:
    """Print the medians of both and their ratio, for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default=BEFORE, help="revision to compare with")
    parser.add_argument("--stage", choices=tuple(RECIPES), help="this stage only")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = folder / "before"
        before.mkdir()
        archive = subprocess.run(["git", "archive", options.against], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", before], input=archive, check=True)
        write_slices(folder / "slices", 128)
        save_tokenizers(folder)
        for stage, recipes in RECIPES.items():
            if options.stage in (None, stage):
                compare(stage, recipes, (before, ROOT), folder, options)


def save_tokenizers(folder: Path) -> None:
    """Untrained ones, which take as long as trained ones: fitting patches first would take minutes."""
    torch.manual_seed(0)
    latent, resolution = tokenizer_preset("demo"), tokenizer_preset("resolution")
    assert isinstance(latent, TokenizerConfig)
    assert isinstance(resolution, ResolutionConfig)
    save_tokenizer(folder / "tokenizer-0.safetensors", Tokenizer(latent))
    model = ResolutionTokenizer(resolution)
    for buffer in model.quantizer.state_dict().values():
        buffer.normal_(std=0.1)
    save_tokenizer(folder / "tokenizer-1.safetensors", model)


def compare(
    stage: str,
    recipes: tuple[tuple[str, tuple[str, ...]], ...],
    trees: tuple[Path, Path],
    folder: Path,
    options: argparse.Namespace,
) -> None:
    """Print one stage's line."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(options.rounds):
        for i, ((recipe, changes), tree) in enumerate(zip(recipes, trees, strict=True)):
            out = folder / f"{stage}-{turn}-{i}"
            own = {"data": folder / "slices", "out": out, "tokenizer": folder / f"tokenizer-{i}.safetensors"}
            own |= {"steps": options.steps, "threads": 1, "log_every": 1, "validate_slices": 1}
            own |= {"batch_size": BATCH, "validate_every": 10 * options.steps}
            settings = [*(f"{name}={value}" for name, value in own.items()), *changes]
            command = [sys.executable, "-c", RUN, tree / "medvar_engine/train/recipes" / recipe]
            run = subprocess.run(
                [*command, *settings],
                cwd=tree,
                env=os.environ | {"PYTHONPATH": str(tree)},
                capture_output=True,
                text=True,
            )
            if run.returncode:
                sys.exit(f"{tree}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
            times[i].extend(seconds(out / "log.csv")[options.steps // 2 :])
    before, now = map(statistics.median, times)
    print(
        f"{stage:<12} before {before:.2f} s a step, now {now:.2f} s: {now / before:.2f} of it (wanted: at most "
        f"{WANTED[stage]})",
        flush=True,
    )


def seconds(log: Path) -> list[float]:
    """Of every step of a run."""
    return [BATCH / speed for _, speed in read_log(log)[Metric("images_per_second")]]


if __name__ == "__main__":
    main()
