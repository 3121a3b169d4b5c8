"""Make a set: begin it or go on with it, unit by unit, here, in several processes, or on a cluster."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from medvar_engine import parallel
from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.copy_risk import CopyPolicy
from medvar_engine.memorisation.screen import copy_policy as policy_of
from medvar_engine.memorisation.training_index import GATE
from medvar_engine.sets.layouts import describe
from medvar_engine.sets.mixture import Mix
from medvar_engine.sets.set_manifest import SET, UNITS, SetManifest, about_model
from medvar_engine.sets.set_plan import SHARDS, UNIT_IMAGES, Kind, Plan
from medvar_engine.sets.set_unit import Work, flagged_images, make_unit
from medvar_engine.storage import alone, write_files
from medvar_engine.write.marks import UNMARKED, Marks

Progress = Callable[[int, int], None]
"""Called with the images that are there, and how many of them were made by this call."""

_LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # of `write_files`, left behind by a process that was killed
_WORDS = {"memorised": "copy policy"}  # names in set.json that are another word in messages
_KEPT = "What is finished is kept: put it right, and run the same again to go on."


@dataclass(frozen=True, slots=True)
class Computing:
    """Where a set is made. Of several GPUs each worker takes its own."""

    device: str = "auto"  # or "cpu" or "cuda"
    batch: int = 16  # images drawn together
    workers: int = 1  # processes
    cluster: str | None = None  # address of a dask scheduler, in place of own processes


HERE = Computing()


def make_set(
    folder: Path,
    mix: Mix,
    count: int,
    bundle: Bundle,
    *,
    kind: Kind = SHARDS,
    computing: Computing = HERE,
    unit_images: int = UNIT_IMAGES,
    copy_policy: CopyPolicy | None = None,
    marks: Marks = UNMARKED,
    progress: Progress | None = None,
) -> SetManifest:
    """Make a set of ``count`` images in ``folder``, or go on with the one that is there, which may become larger.

    ``unit_images`` is how many images a unit of a new set has: at most so many are lost when a worker ends.
    ``copy_policy`` says what is done with possible copies of training slices; an image that is withheld leaves its
    number free. ``marks`` are written into the pixels of a set of files.
    ``computing`` changes nothing in the result, but that another kind of device may round otherwise. Raises
    `MedvarError` when ``folder`` holds something else, when the disk is full, or when a unit cannot be made; what is
    finished then stays, and the same call continues.
    """
    if bundle.image_channels != 1:
        raise MedvarError(
            f"Only gray images can be written yet, but {bundle.name} has {bundle.image_channels} channels."
        )
    bundle.verify()
    if marks and kind.layout == "shards":
        raise MedvarError("Shards are to train on, and would teach the mark; mark a set of files (--layout).")
    policy = policy_of(bundle, copy_policy)
    gate = "" if policy == "off" else bundle.sha256[GATE]
    begun = datetime.now().astimezone().isoformat(timespec="seconds")
    asked = Plan(mix, count, bundle.bundle_id, kind, begun, unit_images, policy, gate, marks)
    folder = folder.absolute()
    manifest = _planned(folder, asked, bundle)
    plan = manifest.plan
    described = describe(plan, bundle)
    try:
        (folder / UNITS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedvarError(f"Cannot make the folder {folder}: {error.strerror or error}. Choose another one.") from error
    with _alone(folder):
        manifest.write(folder)  # first, for it says whose folder this is
        write_files({folder / name: text.encode() for name, text in described.items()})
        # Workers share the cores, and a cluster's worker has one thread by custom.
        own = computing.workers
        threads = 1 if computing.cluster else max(1, _cores() // own) if own > 1 else None
        work = Work(plan, 0, folder, bundle.path.absolute(), computing.device, computing.batch, threads)
        works = [replace(work, unit=unit) for unit in range(plan.units)]
        units = tuple(_make(works, own, computing.cluster, progress))
        manifest = replace(manifest, units=units, flagged=flagged_images(plan, folder))
        if manifest.withheld:
            about = describe(plan, bundle, manifest.withheld)
            write_files({folder / name: text.encode() for name, text in about.items()})
        manifest.write(folder)
    return manifest


def _make(works: list[Work], workers: int, cluster: str | None, progress: Progress | None) -> list[str]:
    """Make all units; gives the sha256 of their notes."""
    notes = [""] * len(works)
    there = made = 0
    outcomes = parallel.run(make_unit, works, workers=workers, cluster=cluster)
    try:
        for unit, outcome in outcomes:
            if isinstance(outcome, MedvarError):
                numbers = works[unit].plan.numbers(unit)
                if isinstance(outcome, parallel.UnitLost):
                    raise MedvarError(
                        f"Images {numbers.start} to {numbers.stop - 1} ended their worker, or found too little memory: "
                        f"make fewer at once (--batch), or with fewer workers. {_KEPT}"
                    ) from outcome
                raise MedvarError(
                    f"Images {numbers.start} to {numbers.stop - 1} could not be made: {outcome} {_KEPT}"
                ) from outcome
            notes[unit] = outcome.note
            there += outcome.images
            made += outcome.images if outcome.made else 0
            if progress is not None:
                progress(there, made)
    finally:
        outcomes.close()
        _remove_temporaries(works[0].folder)
    return notes


def _planned(folder: Path, asked: Plan, bundle: Bundle) -> SetManifest:
    """The manifest of a new set, or that of the one in ``folder``, as large as is asked for now."""
    try:
        there = folder.exists()
        foreign = there and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / SET).is_file()))
    except OSError as error:
        raise MedvarError(f"Cannot look into {folder}: {error.strerror or error}.") from error
    if foreign:
        raise MedvarError(f"{folder} holds something else than a set. Choose a new or empty folder.")
    if not there or not (folder / SET).is_file():
        return SetManifest(asked, about_model(bundle))
    manifest = SetManifest.read(folder)
    found = manifest.plan
    asked = replace(asked, created=found.created, unit_images=found.unit_images)
    if asked.identity != found.identity:
        old, new = found.to_dict(), asked.to_dict()
        names = [*old, *(name for name in new if name not in old)]
        changed = (_WORDS.get(name, name) for name in names if name != "count" and old.get(name) != new.get(name))
        differing = ", ".join(changed)
        raise MedvarError(
            f"{folder} holds a set that was made otherwise ({differing} differ). Choose another folder, or ask for "
            "what its set.json says."
        )
    if asked.count < found.count:
        raise MedvarError(
            f"{folder} is a set of {found.count} images; it can be made larger, not smaller ({asked.count})."
        )
    # A complete set stays so while it is only looked through.
    return replace(manifest, plan=asked, units=manifest.units if asked.count == found.count else ())


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else makes this set meanwhile."""
    refusal = f"{folder} is being made by another process; wait until that has ended."
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone(folder / _LOCK, refusal))
        except OSError as error:
            raise MedvarError(f"Cannot write to {folder}: {error.strerror or error}.") from error
        _remove_temporaries(folder)
        yield


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remove_temporaries(folder: Path) -> None:
    for path in folder.rglob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
