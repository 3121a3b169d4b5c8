"""Are copies of training slices found, by kind and strength of change, and are new patients left alone?

    python benchmarks/copy_detection.py SLICES [--copies 200] [--held-out PATIENTS]

SLICES is a folder that `medvar prepare` wrote, with patients held out; `--held-out ann,bob` holds out these instead, so
that by several runs everybody is new once. Makes a gate as `medvar gate` does, and plants other copies than those that
set its threshold. Printed are the false alarms on slices of held-out patients, each judged by a gate that is set
without that patient, also when half of such a slice is black; the share of copies found by each kind of change, and by
each strength of it, with 95 % intervals from resampled patients; and what asking costs. `redrawn` replaces a part of
the slice by a held-out patient's slice. At fixed strengths, a mask that leaves less than a tenth of a slice's edges is
drawn anew, for what is left is no copy; printed is how often. Printed besides is the share found of those copies of
which a twentieth of the image is visible, as the gate sees it: neither flat nor at the border of what is flat.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import Manifest
from medvar_engine.encoders.image_source import PreparedImages
from medvar_engine.encoders.preprocessing import resize
from medvar_engine.evaluate.copies import calibrate, find_planted_copies
from medvar_engine.evaluate.images.planted_copies import all_of_it, bend, blur, cover, zoom
from medvar_engine.evaluate.metrics.bootstrap import Estimate, estimate_mean
from medvar_engine.memorisation.edge_maps import GRID, Directions, edge_map
from medvar_engine.memorisation.gate import Gate
from medvar_engine.types import FloatArray

ASKED = 50  # images whose check is timed
VISIBLE = 0.05
LEFT = 0.1  # share of a slice's edges that a mask must leave
DRAWN = Counter[str]()
Change = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]
"""Of a slice, a slice of a held-out patient, and a source of chance."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="prepared slices")
    parser.add_argument("--copies", type=int, default=200, help="of each kind and strength (default 200)")
    parser.add_argument("--held-out", type=lambda text: text.split(","), help="patients, in place of those held out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = split_anew(options.folder, options.held_out, Path(name)) if options.held_out else options.folder
        measure(*(SliceDataset(folder, split=split) for split in ("train", "test")), options.copies)


def split_anew(folder: Path, held_out: list[str], out: Path) -> Path:
    """The same slices with other patients held out: a folder of links, and a manifest of its own."""
    manifest = Manifest.read(folder)
    if unknown := set(held_out) - set(manifest.split):
        raise SystemExit(f"{folder} has nobody called {', '.join(sorted(unknown))}.")
    for name in manifest.files:
        (out / name).symlink_to((folder / name).absolute())
    replace(manifest, split={one: "test" if one in held_out else "train" for one in manifest.split}).write(out)
    return out


def strengths() -> dict[str, Change]:
    """Every kind of change at fixed strengths."""
    changes: dict[str, Change] = {}
    for factor in (0.75, 0.87, 1.15, 4 / 3):
        changes[f"zoom {factor:.2f}"] = lambda image, other, rng, factor=factor: zoom(image, factor)
    for gamma in (0.5, 0.7, 1.4, 2.0):
        changes[f"gamma {gamma:g}"] = lambda image, other, rng, gamma=gamma: bend(image, gamma)
    for pixels in (0.5, 1.0, 2.0):
        changes[f"blur {pixels:g}/128"] = lambda image, other, rng, by=pixels: blur(image, by * len(image) / 128)
    for share in (0.125, 0.25, 0.375, 0.5):
        changes[f"mask {share:.1%}"] = lambda image, other, rng, share=share: partly(image, share, -1.0, rng)
        changes[f"redrawn {share:.1%}"] = lambda image, other, rng, share=share: partly(image, share, other, rng)
    changes["all, and mask 25.0%"] = lambda image, other, rng: partly(all_of_it(image, rng), 0.25, -1.0, rng)
    return changes


def partly(image: FloatArray, share: float, other: FloatArray | float, rng: np.random.Generator) -> FloatArray:
    """`cover`, but enough of the edges of the slice is left to be recognised."""
    edges = np.abs(edge_map(image)) ** 2
    while True:
        DRAWN["masks"] += 1
        covered = cover(np.zeros_like(image), share, 1.0, rng)
        left = resize(covered, GRID, "bilinear") < 0.01
        if (edges * left).sum() >= LEFT * edges.sum():
            return np.where(covered == 1, other, image).astype(np.float32)
        DRAWN["anew"] += 1


def measure(training: SliceDataset, held_out: SliceDataset, copies: int) -> None:
    """Print false alarms and copies found."""
    names = [[row.patient for row in data.rows] for data in (training, held_out)]
    patients = [len(set(own)) for own in names]
    print(f"{len(training)} slices of {patients[0]} patients, {len(held_out)} of {patients[1]} held out", flush=True)
    train, test = PreparedImages(training), PreparedImages(held_out)
    start = time.process_time()
    calibration = calibrate(train, names[0], test, names[1])
    gate, shares = calibration.gate, calibration.false_alarms
    print(f"threshold {gate.threshold:.3f}, by copies alone {calibration.copies:.3f}; {gate.levels}")
    print(f"made in {time.process_time() - start:.0f} s; the index is {gate.index.nbytes / 2**20:.1f} MB")
    alarms = estimate_mean(np.array(list(shares.values())), list(shares))
    print(f"false alarms, of a patient that the threshold has not seen: {with_interval(alarms)}", flush=True)
    masked, _ = found_by(gate, test, test, lambda image, other, rng: cover(image, 0.5, -1.0, rng), copies, names[1])
    print(f"and of such slices, half of each black: {with_interval(masked)}", flush=True)
    for kind, found in find_planted_copies(gate, train, count=copies).items():
        print(f"{kind:<22}{with_interval(found)}", flush=True)
    for kind, change in strengths().items():
        found, of_visible = found_by(gate, train, test, change, copies, names[0])
        print(f"{kind:<22}{with_interval(found)}   visible: {with_interval(of_visible)}", flush=True)
    print(f"masks drawn anew: {DRAWN['anew'] / DRAWN['masks']:.1%}")
    asked = test.batch(range(min(ASKED, len(test))))
    start = time.process_time()
    gate.check(asked)
    print(f"{1000 * (time.process_time() - start) / len(asked):.0f} ms of a processor an image")


def found_by(
    gate: Gate, slices: PreparedImages, others: PreparedImages, change: Change, count: int, names: list[str]
) -> tuple[Estimate, Estimate]:
    """Share of ``slices``, changed by ``change``, that are flagged, and of those of which enough is visible.

    ``names`` say whose they are.
    """
    rng = np.random.default_rng(2)
    chosen = np.sort(rng.choice(len(slices), min(count, len(slices)), replace=False))
    flagged, visible = [], []
    for number in chosen:
        image, other = slices.batch([number])[0], others.batch([int(rng.integers(len(others)))])[0]
        changed = np.clip(change(image, other, rng), -1, 1)
        flagged.append(gate.check(changed[None]).flagged[0])
        visible.append(Directions.of(changed).seen.mean() >= VISIBLE)
    found, own, enough = np.array(flagged), np.array(names)[chosen], np.array(visible)
    return estimate_mean(found, list(own)), estimate_mean(found[enough], list(own[enough]))


def with_interval(estimate: Estimate) -> str:
    """In per cent, with its interval."""
    return f"{estimate.value:7.1%}  ({estimate.low:.1%} to {estimate.high:.1%})"


if __name__ == "__main__":
    main()
