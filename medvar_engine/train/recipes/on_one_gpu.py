"""Trains a model like the shipped one, but with six blocks, on a GPU that is available for some minutes only.

    python on_one_gpu.py pack SLICES slices.zip            # on the machine with the slices; at most 60 MiB
    python on_one_gpu.py tokenizer slices.zip OUT          # on the GPU
    python on_one_gpu.py transformer slices.zip OUT
    python on_one_gpu.py guide slices.zip OUT
    python on_one_gpu.py refiner slices.zip OUT

Each call writes one file of weights below 16 MiB to OUT, and needs only the files of earlier calls. It uses the recipe
of the same name, and first runs a few steps to measure how many fit into its time. Settings can be added as
``name=value``, such as ``batch_size=256``. It was tried on CPUs at toy size, and not yet on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
import statistics
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import Manifest, ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric, read_log
from medvar_engine.train.batches import spread
from medvar_engine.train.config import load_config
from medvar_engine.train.run_training import run
from medvar_engine.train.stages.refiner_stage import FITTED

MINUTES = 9.0
MOST_PACKED, MOST_WEIGHTS = 60 * 2**20, 16 * 2**20  # bytes
TRIAL = 30  # steps to measure the time of one; torch compiles in the first of them
USED = 0.85  # share of the remaining time for steps; the rest is for validations and saving
HELD_OUT = 512  # number of slices of held-out patients that are packed
SETTINGS = {  # in addition to those of the recipe
    "tokenizer": ("batch_size=64",),
    "transformer": ("batch_size=128", "compile=true", "depth=6"),  # eight blocks have more than 16 MiB
    "guide": (),
    "refiner": ("batch_size=64",),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", choices=("pack", *SETTINGS))
    parser.add_argument("slices", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", help="name=value")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time limit of the call in minutes")
    options = parser.parse_args(arguments)
    if options.call == "pack":
        print(f"{pack(options.slices, options.out)} slices in {options.out}")
        return
    until = time.monotonic() + 60 * options.minutes
    print(train(options.call, options.slices, options.out, until, options.settings))


def pack(slices: Path, out: Path, most: int = MOST_PACKED) -> int:
    """Pack prepared slices into one file of at most ``most`` bytes, in 8 bits; returns the number of slices.

    If not all slices fit, evenly spaced training slices are left out.
    """
    training, held_out = SliceDataset(slices, "train"), SliceDataset(slices, "test")
    some = spread(len(held_out), HELD_OUT)
    tested = [_compressed(held_out, int(i)) for i in some]
    size = statistics.mean(len(_compressed(training, int(i))) + 400 for i in spread(len(training), 200))
    room = most - sum(len(one) + 400 for one in tested)  # 400 bytes for the metadata of one slice
    chosen = spread(len(training), min(len(training), int(0.97 * room / size)))
    facts: list[dict[str, Any]] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for data, numbers in ((training, chosen), (held_out, some)):
            for i in numbers:
                file.writestr(f"{len(facts)}.webp", _compressed(data, int(i)))
                fact = data.rows[int(i)]
                values = {field.name: getattr(fact, field.name) for field in dataclasses.fields(SliceFacts)}
                facts.append(values | {"fingerprint": fact.fingerprint.hex()})
        about = {"size": training.size, "split": training.manifest.split, "slices": facts}
        file.writestr("slices.json", json.dumps(about), zipfile.ZIP_DEFLATED)
    if out.stat().st_size > most:
        raise MedvarError(
            f"{out} has {out.stat().st_size / 2**20:.1f} MiB, more than {most / 2**20:g}. Use fewer slices."
        )
    return len(facts)


def unpack(packed: Path, folder: Path) -> Manifest:
    """The inverse of `pack`: write prepared slices to a new folder."""
    with zipfile.ZipFile(packed) as file:
        about = json.loads(file.read("slices.json"))
        with ShardWriter(folder, about["size"]) as writer:
            for i, values in enumerate(about["slices"]):
                grey = np.asarray(Image.open(io.BytesIO(file.read(f"{i}.webp"))).convert("L"))
                facts = SliceFacts(**values | {"fingerprint": bytes.fromhex(values["fingerprint"])})
                writer.add(grey.astype(np.uint16)[None] * 257, [facts])
            return writer.finish(about["split"])


def _compressed(data: SliceDataset, number: int) -> bytes:
    image = np.rint((data.batch([number])[0, 0] + 1) * 127.5).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "webp", lossless=True)
    return content.getvalue()


def train(call: str, packed: Path, out: Path, until: float, settings: list[str]) -> Path:
    """Train one stage until the time ``until`` of the monotonic clock; returns the path of its weights in ``out``.

    Raises `MedvarError` when an earlier call is missing, when there is not enough time, or when the weights are too
    large.
    """
    given = {
        "tokenizer": out / "tokenizer.safetensors",
        "draw_with": out / "transformer.safetensors",
        "draw_guide": out / "guide.safetensors",
    }
    needed = {
        "tokenizer": (),
        "transformer": ("tokenizer",),
        "guide": ("tokenizer",),
        "refiner": ("tokenizer", "draw_with", "draw_guide"),
    }[call]
    for name in needed:
        if not given[name].is_file():
            raise MedvarError(
                f"{given[name]} is missing. Run the calls tokenizer, transformer, guide and refiner in this order."
            )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(packed, folder / "slices")
        own = [f"data={folder / 'slices'}", *(f"{name}={given[name]}" for name in needed), *SETTINGS[call], *settings]
        recipe = Path(__file__).with_name(f"{call}.toml")
        trial = load_config(recipe, [*own, f"out={folder / 'trial'}", f"steps={TRIAL}", "log_every=1"])
        run(trial)
        left = until - time.monotonic()
        if left <= 0:
            raise MedvarError(f"The time was over before {call} could begin. Give it more time with --minutes.")
        if (fitted := folder / "trial" / FITTED).is_file():  # patches need not be fitted twice
            (folder / "run").mkdir()
            shutil.copy(fitted, folder / "run" / FITTED)
        steps = max(1, int(USED * left / _seconds(folder / "trial", trial.batch_size)))
        own.append(f"out={folder / 'run'}")
        if call == "guide":  # it must stay worse than the model
            steps = min(steps, load_config(recipe, own).steps)
        look = max(1, steps // 4)
        weights = run(load_config(recipe, [*own, f"steps={steps}", f"validate_every={look}"]))
        if weights.stat().st_size >= MOST_WEIGHTS:
            raise MedvarError(f"The weights have {weights.stat().st_size / 2**20:.1f} MiB, but the limit is 16 MiB.")
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "run" / "log.csv", out / f"{call}.csv")
        return Path(shutil.copy(weights, out / f"{call}.safetensors"))


def _seconds(folder: Path, batch_size: int) -> float:
    """Seconds per step after torch has compiled."""
    speeds = [value for _, value in read_log(folder / "log.csv")[Metric("images_per_second")]]
    return batch_size / statistics.median(speeds[len(speeds) // 2 :])


if __name__ == "__main__":
    main()
