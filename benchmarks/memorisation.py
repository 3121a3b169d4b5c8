"""Are copies of training slices found, and are new people left alone?

    python benchmarks/memorisation.py SLICES [--out FOLDER] [--steps N] [--held-out PEOPLE]

SLICES is a folder that `medvar prepare` wrote, with people held out; `--held-out ann,bob` holds out these instead, so
that by several runs everybody is new once. Trains the SimCLR encoder (kept in FOLDER, like the features), sets the
threshold by planted copies and by the held-out people, and plants other copies. Prints seconds, false alarms of each
held-out person with the threshold set without that person, the share of copies found, and what asking costs. To compare
with, the same of the descriptor, which is not made for it. Of few people these are rough figures.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import Manifest
from medvar_engine.encoders.descriptor import DescriptorEncoder
from medvar_engine.encoders.encoder import Encoder
from medvar_engine.encoders.image_source import PreparedImages
from medvar_engine.encoders.simclr_training import SimCLRTraining, trained_simclr
from medvar_engine.evaluate.memorisation import calibrate, find_planted_copies

ASKED = 50  # images whose check is timed


def main() -> None:
    """Print the figures of both encoders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="prepared slices")
    parser.add_argument("--out", type=Path, default=Path("memorisation"), help="for the encoder and the features")
    parser.add_argument("--steps", type=int, default=SimCLRTraining().steps, help="of SimCLR's training")
    parser.add_argument("--held-out", type=lambda text: text.split(","), help="people, in place of those held out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = split_anew(options.folder, options.held_out, options.out) if options.held_out else options.folder
    training, held_out = (SliceDataset(folder, split=split) for split in ("train", "test"))
    print(f"{len(training)} slices to train on, {len(held_out)} held out")
    start = time.perf_counter()
    file = options.out / "simclr.safetensors"
    simclr = trained_simclr(training, file, SimCLRTraining(steps=options.steps))
    print(f"SimCLR trained in {time.perf_counter() - start:.0f} s")
    for encoder in (simclr, DescriptorEncoder()):
        measure(encoder, training, held_out, options.out / "features")


def split_anew(folder: Path, held_out: list[str], out: Path) -> Path:
    """The same slices with other people held out: a folder of links, and a manifest of its own."""
    manifest = Manifest.read(folder)
    if unknown := set(held_out) - set(manifest.split):
        raise SystemExit(f"{folder} has nobody called {', '.join(sorted(unknown))}.")
    again = out / "slices"
    again.mkdir(exist_ok=True)
    for name in manifest.files:
        (again / name).unlink(missing_ok=True)
        (again / name).symlink_to((folder / name).absolute())
    replace(manifest, split={one: "test" if one in held_out else "train" for one in manifest.split}).write(again)
    return again


def measure(encoder: Encoder, training: SliceDataset, held_out: SliceDataset, cache: Path) -> None:
    """Print false alarms and copies found by one encoder."""
    names = ([row.patient for row in data.rows] for data in (training, held_out))
    train, test = PreparedImages(training), PreparedImages(held_out)
    calibration = calibrate(encoder, train, next(names), test, next(names), cache)
    print(f"\n{encoder.name}: threshold {calibration.gate.threshold:.3f}, by copies alone {calibration.copies:.3f}")
    print(f"  held-out slices flagged {calibration.held_out.share:.1%}")
    shares = calibration.false_alarms
    print(f"  of a person that the threshold has not seen, on average {sum(shares.values()) / len(shares):.1%}:")
    print("   ", ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    found = find_planted_copies(calibration.gate, train)
    print("  copies found:", ", ".join(f"{kind} {share.value:.1%}" for kind, share in found.items()))
    asked = test.batch(range(min(ASKED, len(test))))
    start = time.perf_counter()
    calibration.gate.check(asked)
    seconds = (time.perf_counter() - start) / len(asked)
    rows, features = calibration.gate.embeddings.shape
    print(f"  {1000 * seconds:.0f} ms an image; the index is {rows * features * 2 / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
