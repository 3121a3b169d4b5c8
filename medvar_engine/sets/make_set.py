"""`make_set`: makes or continues a synthetic dataset, unit by unit, in one or several processes or on a cluster."""

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
from medvar_engine.sets.layouts import describe, describe_made
from medvar_engine.sets.mixture import Mixture
from medvar_engine.sets.set_manifest import SET, UNITS, SetManifest, about_model
from medvar_engine.sets.set_plan import SHARDS, UNIT_IMAGES, SetFormat, SetPlan
from medvar_engine.sets.set_unit import SetUnit, flagged_images, make_unit
from medvar_engine.storage import exclusive_lock, make_folder, write_files
from medvar_engine.write.marks import UNMARKED, Marks

Progress = Callable[[int, int], None]
"""Called with the number of finished images, and how many of them this call has made."""

_LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # temporary files of `write_files`, left by a process that was killed
_WORDS = {"memorised": "copy policy"}  # names in set.json that differ from the words in messages
_KEPT = "Finished images are kept. Correct this, and run the same command again to continue."


@dataclass(frozen=True, slots=True)
class Resources:
    """Where a dataset is made. With several GPUs, each worker uses one."""

    device: str = "auto"  # "auto", "cpu" or "cuda"
    batch: int = 16  # images generated together
    workers: int = 1  # number of processes
    cluster: str | None = None  # address of a dask scheduler, instead of local processes


HERE = Resources()


def make_set(
    folder: Path,
    mixture: Mixture,
    count: int,
    bundle: Bundle,
    *,
    kind: SetFormat = SHARDS,
    computing: Resources = HERE,
    unit_images: int = UNIT_IMAGES,
    copy_policy: CopyPolicy | None = None,
    marks: Marks = UNMARKED,
    progress: Progress | None = None,
) -> SetManifest:
    """Make a synthetic dataset of ``count`` images in ``folder``, or continue or enlarge an existing one.

    ``unit_images`` is the number of images per unit of a new dataset: at most this number is lost when a worker ends.
    ``copy_policy`` applies to possible copies of training slices; the number of a withheld image stays unused.
    ``marks`` are written into the pixels of a dataset of files. ``computing`` does not change the result, except that
    another kind of device may round differently. Raises `MedvarError` when ``folder`` contains something else, when the
    disk is full, or when a unit cannot be made; finished units then stay, and the same call continues.
    """
    if bundle.image_channels != 1:
        raise MedvarError(
            f"Only grey images can be written, but {bundle.name} makes images with {bundle.image_channels} channels."
        )
    bundle.verify()
    if marks and kind.layout == "shards":
        raise MedvarError(
            "Shards are for training, and a model would learn the mark. Choose a layout of files (--layout)."
        )
    policy = policy_of(bundle, copy_policy)
    gate = "" if policy == "off" else bundle.sha256[GATE]
    begun = datetime.now().astimezone().isoformat(timespec="seconds")
    asked = SetPlan(mixture, count, bundle.bundle_id, kind, begun, unit_images, policy, gate, marks)
    folder = folder.absolute()
    manifest = _planned(folder, asked, bundle)
    plan = manifest.plan
    described = describe(plan, bundle)
    make_folder(folder / UNITS)
    with _alone(folder):
        manifest.write(folder)  # first, because it identifies the folder
        write_files({folder / name: text.encode() for name, text in described.items()})
        # Workers share the cores, and a worker of a cluster usually has one thread.
        own = computing.workers
        threads = 1 if computing.cluster else max(1, _cores() // own) if own > 1 else None
        work = SetUnit(plan, 0, folder, bundle.path.absolute(), computing.device, computing.batch, threads)
        works = [replace(work, unit=unit) for unit in range(plan.units)]
        units = tuple(_make(works, own, computing.cluster, progress))
        manifest = replace(manifest, units=units, flagged=flagged_images(plan, folder))
        about = describe_made(plan, folder, bundle, manifest.withheld)
        if manifest.withheld:
            about |= describe(plan, bundle, manifest.withheld)
        write_files({folder / name: text.encode() for name, text in about.items()})
        manifest.write(folder)
    return manifest


def _make(works: list[SetUnit], workers: int, cluster: str | None, progress: Progress | None) -> list[str]:
    """Make all units; returns the sha256 of their notes."""
    notes = [""] * len(works)
    there = made = 0
    outcomes = parallel.run(make_unit, works, workers=workers, cluster=cluster)
    try:
        for unit, outcome in outcomes:
            if isinstance(outcome, MedvarError):
                numbers = works[unit].plan.numbers(unit)
                if isinstance(outcome, parallel.UnitLost):
                    raise MedvarError(
                        f"Images {numbers.start} to {numbers.stop - 1} ended their worker, or there was not "
                        f"enough memory. Use a smaller --batch, or fewer workers. {_KEPT}"
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


def _planned(folder: Path, asked: SetPlan, bundle: Bundle) -> SetManifest:
    """The manifest of a new dataset, or of the one in ``folder`` with the requested size."""
    try:
        there = folder.exists()
        foreign = there and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / SET).is_file()))
    except OSError as error:
        raise MedvarError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
    if foreign:
        raise MedvarError(f"{folder} contains something other than a synthetic dataset. Choose a new or empty folder.")
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
            f"{folder} contains a dataset with other settings ({differing} differ). Choose another folder, or use the "
            "settings in its set.json."
        )
    if asked.count < found.count:
        raise MedvarError(
            f"{folder} is a dataset of {found.count} images. It can be enlarged, but not reduced to {asked.count}."
        )
    # A complete dataset stays complete while it is only checked.
    return replace(manifest, plan=asked, units=manifest.units if asked.count == found.count else ())


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder against other processes that make the same dataset."""
    refusal = f"{folder} is being made by another process. Wait until that process has ended."
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive_lock(folder / _LOCK, refusal))
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
