"""A training run killed again and again (kill -9, at random moments) ends with the model of a run left alone.

    python benchmarks/kill.py --kills 200

Trains a tiny tokenizer on made-up slices, saving every step, so that many kills fall into the writing of checkpoints.
Prints how often it was killed, how many of the kills left half a checkpoint, and whether anything was lost.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medvar_engine.data.codes import encode
from medvar_engine.data.facts import SliceFacts
from medvar_engine.data.shards import ShardWriter

SIZE = 16
TRAIN = """
import sys
from medvar_engine.models import presets
from medvar_engine.models.tokenizer import TokenizerConfig
presets.TOKENIZERS["demo"] = TokenizerConfig(16, (1, 2, 3, 4), 128, 4, (8, 16), res_blocks=1, groups=4, patch=2)
from medvar_engine.train.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


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


def start(slices: Path, out: Path, steps: int) -> subprocess.Popen[bytes]:
    """The trainer in a process of its own."""
    settings = [
        "stage=tokenizer", f"data={slices}", f"out={out}", f"steps={steps}", "batch_size=4", "save_every=1",
        f"validate_every={steps}", "threads=1", "keep=2", "validate_slices=8",
    ]  # fmt: skip
    command = [sys.executable, "-c", TRAIN, *settings, "--resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def main() -> None:
    """Run it and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_slices(folder / "slices")
        began = time.monotonic()
        whole = start(folder / "slices", folder / "whole", options.steps)
        if whole.wait() != 0:
            sys.exit(f"The run that was left alone failed:\n{whole.stderr.read().decode()}")  # type: ignore[union-attr]
        alone = time.monotonic() - began
        kills = halves = 0
        while True:
            run = start(folder / "slices", folder / "killed", options.steps)
            if kills < options.kills:
                _wait_for_training(run, folder / "killed" / "checkpoints")
                time.sleep(chance.uniform(0, 0.5))
            if kills >= options.kills or run.poll() is not None:
                error = run.communicate()[1]
                if run.returncode != 0:
                    sys.exit(f"LOST after {kills} kills: the run cannot go on.\n{error.decode()}")
                break
            run.send_signal(signal.SIGKILL)
            run.communicate()
            kills += 1
            halves += any((folder / "killed" / "checkpoints").glob(".step-*.tmp"))
        same = (folder / "whole/tokenizer.safetensors").read_bytes() == (
            folder / "killed/tokenizer.safetensors"
        ).read_bytes()
        print(f"{kills} kills, {halves} of them while a checkpoint was being written ({alone:.0f} s undisturbed)")
        print("the model is that of the undisturbed run, bit for bit" if same else "LOST: the model differs")
        sys.exit(0 if same else 1)


def _wait_for_training(run: subprocess.Popen[bytes], checkpoints: Path) -> None:
    """Until the process has begun to write checkpoints: a kill while Python starts tests nothing."""
    before = {path.name for path in checkpoints.glob("step-*")}
    while run.poll() is None and {path.name for path in checkpoints.glob("step-*")} <= before:
        time.sleep(0.02)


if __name__ == "__main__":
    main()
