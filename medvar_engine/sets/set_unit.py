"""Makes one unit of a synthetic dataset: its images, and a note with the sha256 of every file.

The note is written last, so a unit with a note is complete. The result does not depend on the process that makes it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generate.finished_pairs import finished_pairs
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.memorisation.screen import CopyScreen, Screened, screen
from medvar_engine.memorisation.training_index import GATE
from medvar_engine.sets.layouts import write_images
from medvar_engine.sets.set_image import SetImage
from medvar_engine.sets.set_manifest import UNITS
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.sets.worker_gpu import take_gpu
from medvar_engine.storage import sha256, sha256_of, write_files, writing
from medvar_engine.untrusted import plain_json


@dataclass(frozen=True, slots=True)
class SetUnit:
    """One unit to be made in ``folder``. Plain values, so another process can do it."""

    plan: SetPlan
    unit: int
    folder: Path
    bundle: Path
    device: str = "auto"
    batch: int = 16
    threads: int | None = None  # threads of one network; None for the number of cores


@dataclass(frozen=True, slots=True)
class FinishedUnit:
    """A finished unit: the sha256 of its note, its images, and whether this call made them."""

    note: str
    images: int
    made: bool


def note_path(folder: Path, unit: int) -> Path:
    """The path of the note of a unit."""
    return folder / UNITS / f"{unit:05d}.json"


def make_unit(work: SetUnit) -> FinishedUnit:
    """Make a unit unless it is complete. Raises `MedvarError` when it cannot be made or written."""
    numbers = work.plan.numbers(work.unit)
    if (there := finished(work.plan, work.unit, work.folder)) is not None:
        return FinishedUnit(there, len(numbers), False)
    bundle, generator, copies = _engine(work)
    images = list(_images(work, numbers, generator, copies))
    found = Screened(copies.policy, tuple(made.copy_risk for made in images))
    kept, withheld = ([images[i] for i in some] for some in (found.kept, found.withheld))
    files = write_images(work.plan, work.unit, work.folder, bundle, kept, withheld)
    with writing(work.folder, "finished units are kept"):
        digests = {path.relative_to(work.folder).as_posix(): sha256(path) for path in files}
    note = {
        "unit": work.unit,
        "images": [numbers.start, numbers.stop - 1],
        "plan": work.plan.identity,
        "synthetic": True,
        "too_near": [images[i].number for i in found.flagged],
        "provider": generator.backend.info.provider,
        "files": digests,
    }
    content = json.dumps(note, indent=1).encode()
    write_files({note_path(work.folder, work.unit): content})
    return FinishedUnit(sha256_of(content), len(numbers), True)


def _images(work: SetUnit, numbers: range, generator: Generator, copies: CopyScreen) -> Iterator[SetImage]:
    """The images of a unit. While one batch is decoded and checked for copies, the next is drawn."""

    def decoded(some: range, generation: Generation) -> list[SetImage]:
        images, masks = finished_pairs(generator, generation)
        risks = screen(images, copies).risks
        return [SetImage(*made) for made in zip(some, images, generation.traces, risks, masks, strict=True)]

    with ThreadPoolExecutor(1, "medvar-decode") as beside:
        before: Future[list[SetImage]] | None = None
        for first in range(0, len(numbers), work.batch):
            some = numbers[first : first + work.batch]
            generation = generator.finish(generator.start(work.plan.mixture.requests(some)))
            generator.cache.clear()  # these prefixes are not needed again
            if before is not None:  # so that no more than one batch waits
                yield from before.result()
            before = beside.submit(decoded, some, generation)
        if before is not None:
            yield from before.result()


def flagged_images(plan: SetPlan, folder: Path) -> frozenset[int]:
    """The numbers of possible copies of training slices in a complete dataset, from the notes of its units."""
    if not plan.gate:
        return frozenset()
    try:
        notes = (plain_json.read(note_path(folder, unit)) for unit in range(plan.units))
        return frozenset(int(number) for note in notes for number in note["too_near"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MedvarError(f"A note in {folder / UNITS} cannot be read: {error!r}. Make the dataset again.") from error


def finished(plan: SetPlan, unit: int, folder: Path) -> str | None:
    """The sha256 of a unit's note if the unit belongs to this plan and all files are complete and unchanged."""
    numbers = plan.numbers(unit)
    try:
        content = note_path(folder, unit).read_bytes()
        note = plain_json.loads(content)
        if note["plan"] != plan.identity or note["images"] != [numbers.start, numbers.stop - 1]:
            return None
        if any(sha256(folder / name) != digest for name, digest in note["files"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sha256_of(content)


_OWN = threading.local()  # a cluster's worker may have several threads, and a generator can be used by one only


def _engine(work: SetUnit) -> tuple[Bundle, Generator, CopyScreen]:
    """The bundle, a generator, and the screen for copies, loaded once in each thread."""
    from medvar_engine.backends.onnx import OnnxBackend

    wanted = (work.bundle, work.plan.bundle_id, work.device, work.threads, work.plan.copy_policy, work.plan.gate)
    if getattr(_OWN, "wanted", None) != wanted:
        take_gpu(work.device)
        bundle = read_bundle(work.bundle)
        if work.plan.bundle_id != bundle.bundle_id:
            raise MedvarError(f"{work.bundle} is not the model of this dataset (sha256 {work.plan.bundle_id[:12]}…).")
        if work.plan.gate and bundle.sha256.get(GATE) != work.plan.gate:
            raise MedvarError(
                f"{work.bundle} has another training index than the one with which this dataset was begun."
            )
        copies = CopyScreen.of(bundle, work.plan.copy_policy)
        backend = OnnxBackend(bundle, device=work.device, threads=work.threads)
        _OWN.engine = (bundle, Generator(backend), copies)
        _OWN.wanted = wanted
    engine: tuple[Bundle, Generator, CopyScreen] = _OWN.engine
    return engine
