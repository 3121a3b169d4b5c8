"""Work that is killed again and again (kill -9, at random moments) ends as work left alone, and nothing is lost.

    python benchmarks/kill.py [--kills 200] [--of train prepare sets autosave] [--seed 0]

    train      a tiny tokenizer learns from made-up slices, saving every step: the model must be the same
    prepare    made-up scans become shards: every file must be the same
    sets       a tiny model makes a synthetic dataset: images and traces must be the same
    autosave   a session of the plugin grows and is saved after every image: what is left must hold every image
               whose saving had ended, unchanged

Work that is killed is begun again with the same call, until it ends; the next begins then, until there were as many
kills of each kind as asked for. Each process is a fork of this one, which has loaded everything: starting Python would
take most of the time. Prints how many kills fell before the end of how many runs, in training also into which moments,
and whether anything was lost; the exit status is 1 then. For POSIX systems.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path

import nibabel
import numpy as np
import torch
from rich.console import Console

from medvar_engine.bundle.read import Bundle, SliceType, read_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.prepare import prepare
from medvar_engine.data.shards import ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.survey import ScanRules
from medvar_engine.generate.trace import Trace
from medvar_engine.models import presets
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import save_tokenizer, save_transformer
from medvar_engine.request import Request, Sampling
from medvar_engine.sets.make_set import Resources, make_set
from medvar_engine.sets.mixture import Component, Mixture
from medvar_engine.tokens.pyramid import TokenPyramid
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run
from medvar_engine.value_range import encode
from napari_medvar.session.autosave import Autosave, recoverable
from napari_medvar.session.session_file import SavedSession, read_session
from napari_medvar.session.trace_tree import Node

SIZE = 16
STEPS = 40  # of every training
IMAGES = 12  # of every synthetic dataset, in units of two; and of every session
SIDES = (1, 2, 3, 4)
TINY = TokenizerConfig(SIZE, SIDES, 128, 4, (8, 16), res_blocks=1, groups=4, patch=2)
FORK = multiprocessing.get_context("fork")


def main() -> None:
    """Run it and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each kind of work (default 200)")
    parser.add_argument("--of", nargs="+", choices=tuple(KINDS), default=tuple(KINDS), help="kinds (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    presets.TOKENIZERS["demo"] = TINY
    for kind in options.of:
        with tempfile.TemporaryDirectory() as name:
            began = time.monotonic()
            moments, runs = kill(KINDS[kind](Path(name)), options.kills, random.Random(options.seed))
            took = time.monotonic() - began
        print(f"{kind}: {moments.total()} kills in {runs} runs in {took:.0f} s, nothing lost", flush=True)
        for moment, count in moments.most_common() if len(moments) > 1 else ():
            print(f"  {count:4d} {moment}")


class Job(ABC):
    """Work of one kind in ``folder``, which holds what it needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Write what the work needs."""

    @abstractmethod
    def work(self, out: Path) -> None:
        """Do it, going on with what is there."""

    def killed(self, out: Path) -> str:
        """Check what a kill has left, and say into which moment it fell. Exits when something is lost."""
        return "work"

    def result(self, out: Path) -> Mapping[str, bytes]:
        """What finished work has made: name → content."""
        return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def kill(job: Job, kills: int, chance: random.Random) -> tuple[Counter[str], int]:
    """Kill one run after the other, each until it is at its end. How often in which moment, and how many runs."""
    began = time.monotonic()
    process = started(job, job.folder / "whole")
    process.join()
    if process.exitcode != 0:
        sys.exit("The run that was left alone failed.")
    reach, whole = time.monotonic() - began, job.result(job.folder / "whole")
    moments, runs = Counter[str](), 0
    while moments.total() < kills:
        runs, out, ended = runs + 1, job.folder / f"killed-{runs}", False
        while not ended:
            process = started(job, out)
            if moments.total() < kills:
                process.join(chance.uniform(0, 0.5 * reach))
                process.kill()
            process.join()
            ended = process.exitcode == 0
            if process.exitcode not in (0, -9):
                sys.exit(f"LOST after {moments.total()} kills: the work cannot go on.")
            if not ended:
                moments[job.killed(out)] += 1
        found = job.result(out)
        if differing := sorted({name for name in {*whole, *found} if whole.get(name) != found.get(name)}):
            sys.exit(f"LOST after {moments.total()} kills: {', '.join(differing[:5])} of run {runs} differ.")
        if left := [path.name for path in job.folder.rglob(".*") if ".tmp" in path.name or ".parts" in path.name]:
            sys.exit(f"After {moments.total()} kills a run that ended well has left {left}.")
        shutil.rmtree(out, ignore_errors=True)
    return moments, runs


def started(job: Job, out: Path) -> ForkProcess:
    """The work in a process of its own, going on with what is there."""
    process = FORK.Process(target=job.work, args=(out,))
    process.start()
    return process


class Training(Job):
    """See the head of this file."""

    def prepare(self) -> None:
        """Four people's noise, one of them held out."""
        rng = np.random.default_rng(0)
        facts = {"modality": "CT", "region": "chest", "plane": "axial", "dataset": None, "contrast": None}
        facts |= {"spacing_mm": 1.0, "low": -1000.0, "high": 1000.0, "unit": "HU", "position_mm": None}
        facts |= {"series": "", "source": "made up", "licence": "none", "fingerprint": bytes(32)}
        with ShardWriter(self.folder / "slices", SIZE) as writer:
            for person in range(4):
                image = rng.uniform(-1, 1, (8, SIZE, SIZE)).astype(np.float32)
                writer.add(encode(image), [SliceFacts(patient=f"p{person}", **facts)] * 8)  # type: ignore[arg-type]
            writer.finish({f"p{person}": "test" if person == 3 else "train" for person in range(4)})
        self.log: tuple[int, int] | None = None

    def work(self, out: Path) -> None:
        """Train."""
        times = {"steps": STEPS, "save_every": 1, "validate_every": STEPS, "validate_slices": 8, "keep": 2}
        config = TrainConfig(
            stage="tokenizer", data=self.folder / "slices", out=out, batch_size=4, device="cpu", **times
        )
        run(config, resume=True, console=Console(quiet=True))

    def result(self, out: Path) -> Mapping[str, bytes]:
        """The model. The log holds times."""
        return {"model": (out / "tokenizer.safetensors").read_bytes()}

    def killed(self, out: Path) -> str:
        """What was being done, by what is there. Steps begin with a new log."""
        before, self.log = self.log, _identity(out / "log.csv")
        checkpoints = out / "checkpoints"
        if self.log == before:
            return "start"
        if unfinished := next(checkpoints.glob(".step-*.tmp"), None):
            return "putting it in place" if (unfinished / "manifest.json").is_file() else "writing a checkpoint"
        if not all(map(_whole, checkpoints.glob("step-*"))):
            return "removing an old one"
        return "the end" if (checkpoints / f"step-{STEPS:08d}").is_dir() else "learning"


class Preparing(Job):
    """See the head of this file."""

    def prepare(self) -> None:
        """Scans of four people, one of them cut short."""
        scans = self.folder / "scans"
        scans.mkdir()
        rng = np.random.default_rng(0)
        for number in range(8):
            array = rng.integers(0, 900, (44, 44, 6 + number)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), scans / f"{number}.nii.gz")
        (scans / "again.nii.gz").write_bytes((scans / "0.nii.gz").read_bytes()[:3000])

    def work(self, out: Path) -> None:
        """Prepare."""
        if not (out / "manifest.json").exists():  # killed after the end, which is no loss
            prepare(
                self.folder / "scans",
                out,
                Recipe.of(size=32, planes=["axial"]),
                ScanRules(modality="MR", region="brain"),
            )


class Making(Job):
    """See the head of this file."""

    def prepare(self) -> None:
        """A bundle of random weights."""
        from medvar_export.write_bundle import Description, export_bundle

        torch.manual_seed(0)
        labels = LabelSpace(modality=("CT", "MR"), region=("brain", "chest"), plane=("axial", "coronal"))
        transformer = Transformer(TransformerConfig(SIDES, 128, 4, labels.sizes, depth=2, width=16, heads=2))
        weights = self.folder / "tokenizer.safetensors", self.folder / "transformer.safetensors"
        save_tokenizer(weights[0], Tokenizer(TINY).eval())
        save_transformer(weights[1], transformer.eval(), labels)
        chest = SliceType(Condition("CT", "chest", "axial"), 70, 3, 0.75, -1000, 400, "HU")
        about = Description("tiny", "MIT", ("nobody",), "Random weights: nobody.", "# tiny\n", (chest,))
        # In a process of its own: a fork does not survive threads of torch.
        process = FORK.Process(
            target=export_bundle, args=(*weights, self.folder / "bundle", about), kwargs={"log": lambda _: None}
        )
        process.start()
        process.join()
        self.bundle: Bundle = read_bundle(self.folder / "bundle")

    def result(self, out: Path) -> Mapping[str, bytes]:
        """Images and traces. The other files hold the time when the dataset was begun."""
        return {name: content for name, content in super().result(out).items() if name.endswith((".npy", ".arrow"))}

    def work(self, out: Path) -> None:
        """Make the dataset."""
        mixture = Mixture((Component(Condition("CT", "chest", "axial"), Sampling(), 5, 1.0),))
        make_set(out, mixture, IMAGES, self.bundle, computing=Resources("cpu"), unit_images=2, copy_policy="off")


class Saving(Job):
    """See the head of this file."""

    def prepare(self) -> None:
        """Images of random tokens."""
        schedule, chance = ScaleSchedule(SIDES), np.random.default_rng(0)
        entropy = tuple(np.full((side, side), 0.5, dtype=np.float32) for side in schedule)
        self.nodes = tuple(
            Node(
                number,
                Trace(
                    Request(Condition("CT"), number), TokenPyramid.from_sequence(schedule, tokens), entropy, "ab" * 32
                ),
            )
            for number, tokens in enumerate(chance.integers(0, 9, (IMAGES, 1, schedule.tokens)))
        )

    def work(self, out: Path) -> None:
        """A session that grows by one image at a time, or what was left of it goes on."""
        left = recoverable(out)
        saved = read_session(left[0].path).nodes if left else ()
        autosave = Autosave(out)
        for count in range(max(1, len(saved)), IMAGES + 1):
            nodes = (*saved, *self.nodes[len(saved) : count])
            autosave.write(SavedSession("ab" * 32, "tiny", "/here", nodes, count - 1, {}))
            if autosave.problem:
                os._exit(1)
            (out / "done").write_text(f"{count}")  # this many are promised from here on
            for one in left:
                one.discard()
            time.sleep(0.005)
        os._exit(0)  # as in a crash: a session that is closed has nothing left

    def killed(self, out: Path) -> str:
        """Whether all images that were promised are there, and as they were."""
        done = out / "done"
        promised = int(done.read_text() or 0) if done.exists() else 0
        found = [read_session(one.path).nodes for one in recoverable(out)]
        whole = [nodes for nodes in found if _texts(nodes) == _texts(self.nodes[: len(nodes)])]
        if max(map(len, whole), default=0) < promised:
            sys.exit(f"LOST: {promised} images were saved, and {[len(nodes) for nodes in whole]} are left.")
        return "work"

    def result(self, out: Path) -> Mapping[str, bytes]:
        """The images of the session that is left."""
        return {"session": "\n".join(_texts(read_session(recoverable(out)[0].path).nodes)).encode()}


KINDS: Mapping[str, type[Job]] = {"train": Training, "prepare": Preparing, "sets": Making, "autosave": Saving}


def _texts(nodes: Sequence[Node]) -> list[str]:
    return [node.trace.to_json() for node in nodes]


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
