"""Training runs killed again and again (kill -9, at random moments) end with the model of a run left alone.

    python benchmarks/kill.py --kills 200

Trains a tiny tokenizer on made-up slices, saving every step, so that many kills fall into the writing of checkpoints.
A run that comes to its end is compared with the undisturbed one, and the next begins, until there were as many kills as
asked for. Each trainer is a fork of this process, which has loaded everything: starting Python would take most of the
time. Prints into which moments the kills fell, and whether anything was lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from medvar_engine.data.shards import ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.models import presets
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run
from medvar_engine.value_range import encode

SIZE = 16
MODEL = "tokenizer.safetensors"
MOMENTS = ("start", "learning", "writing a checkpoint", "putting it in place", "removing an old one", "the end")
FORK = multiprocessing.get_context("fork")


def main() -> None:
    """Run it and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40, help="of every run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    torch.set_num_threads(1)
    presets.TOKENIZERS["demo"] = TokenizerConfig(SIZE, (1, 2, 3, 4), 128, 4, (8, 16), res_blocks=1, groups=4, patch=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_slices(folder / "slices")
        began = time.monotonic()
        first, whole = undisturbed(folder, options.steps)
        # Long enough for a start and some steps, so that a run gets on, and its end is reached now and then.
        reach = first + 12 * (time.monotonic() - began - first) / options.steps
        moments, runs = kill_runs(folder, options, reach, whole)
        print(f"{options.kills} kills of {runs} runs of {options.steps} steps in {time.monotonic() - began:.0f} s:")
        for moment in MOMENTS:
            print(f"  {moments[moment]:4d} {moment}")
        print("every model is that of the undisturbed run, bit for bit")


def undisturbed(folder: Path, steps: int) -> tuple[float, bytes]:
    """Seconds until the first checkpoint of a run that is left alone, and its model."""
    config, began = settings(folder, "whole", steps), time.monotonic()
    process = started(config)
    while process.is_alive() and not any((config.out / "checkpoints").glob("step-*")):
        time.sleep(0.005)
    first = time.monotonic() - began
    process.join()
    if process.exitcode != 0:
        sys.exit("The run that was left alone failed.")
    return first, (config.out / MODEL).read_bytes()


def kill_runs(folder: Path, options: argparse.Namespace, reach: float, whole: bytes) -> tuple[Counter[str], int]:
    """Kill one run after the other, each until it is at its end. How often in which moment, and how many runs."""
    chance, moments, runs = random.Random(options.seed), Counter[str](), 0
    while moments.total() < options.kills:
        runs += 1
        config = settings(folder, f"killed-{runs}", options.steps)
        ended = False
        while not ended:
            log = _identity(config.out / "log.csv")
            process = started(config)
            if moments.total() < options.kills:
                process.join(chance.uniform(0, reach))
                process.kill()
            process.join()
            ended = process.exitcode == 0
            if process.exitcode not in (0, -9):
                sys.exit(f"LOST after {moments.total()} kills: the run cannot go on.")
            if not ended:
                moments[moment(config, begun=_identity(config.out / "log.csv") != log)] += 1
        if (config.out / MODEL).read_bytes() != whole:
            sys.exit(f"LOST after {moments.total()} kills: the model differs.")
        if left := [path.name for path in config.out.rglob(".*.tmp")]:
            sys.exit(f"After {moments.total()} kills a run that ended well has left {left}.")
    return moments, runs


def moment(config: TrainConfig, *, begun: bool) -> str:
    """What was being done, by what is there. Steps begin with a new log."""
    checkpoints = config.out / "checkpoints"
    if not begun:
        return "start"
    if unfinished := next(checkpoints.glob(".step-*.tmp"), None):
        return "putting it in place" if (unfinished / "manifest.json").is_file() else "writing a checkpoint"
    if not all(map(_whole, checkpoints.glob("step-*"))):
        return "removing an old one"
    return "the end" if (checkpoints / f"step-{config.steps:08d}").is_dir() else "learning"


def settings(folder: Path, name: str, steps: int) -> TrainConfig:
    """Of all runs alike."""
    return TrainConfig(
        stage="tokenizer",
        data=folder / "slices",
        out=folder / name,
        steps=steps,
        batch_size=4,
        save_every=1,
        validate_every=steps,
        validate_slices=8,
        keep=2,
        device="cpu",
    )


def started(config: TrainConfig) -> ForkProcess:
    """The trainer in a process of its own, going on with what is there."""
    process = FORK.Process(target=run, args=(config,), kwargs={"resume": True, "console": Console(quiet=True)})
    process.start()
    return process


def make_slices(folder: Path) -> None:
    """Four people's noise, one of them held out."""
    rng = np.random.default_rng(0)
    facts = {"modality": "CT", "region": "chest", "plane": "axial", "dataset": None, "contrast": None}
    facts |= {"spacing_mm": 1.0, "low": -1000.0, "high": 1000.0, "unit": "HU", "position_mm": None}
    facts |= {"series": "", "source": "made up", "licence": "none", "fingerprint": bytes(32)}
    with ShardWriter(folder, SIZE) as writer:
        for person in range(4):
            image = rng.uniform(-1, 1, (8, SIZE, SIZE)).astype(np.float32)
            writer.add(encode(image), [SliceFacts(patient=f"p{person}", **facts)] * 8)  # type: ignore[arg-type]
        writer.finish({f"p{person}": "test" if person == 3 else "train" for person in range(4)})


def _whole(checkpoint: Path) -> bool:
    manifest = checkpoint / "manifest.json"
    return manifest.is_file() and all(
        (checkpoint / name).is_file() for name in json.loads(manifest.read_bytes())["sha256"]
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Of a file that is replaced as a whole."""
    about = path.stat() if path.exists() else None
    return about and (about.st_ino, about.st_ctime_ns)


if __name__ == "__main__":
    main()
