"""One unit of a set: some images, made and written, with a note that names every file by its sha256.

The note is written last, so that a unit with a note is whole. A unit is made the same by whoever makes it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.arrays import FloatArray
from medvar_engine.bundle import Bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generator import Generator
from medvar_engine.sets.devices import take_gpu
from medvar_engine.sets.layouts import write_images
from medvar_engine.sets.manifest import UNITS
from medvar_engine.sets.plan import Plan
from medvar_engine.trace import Trace
from medvar_engine.write.files import write_files


@dataclass(frozen=True, slots=True)
class Work:
    """One unit to be made in ``folder``. Plain values, so another process can do it."""

    plan: Plan
    unit: int
    folder: Path
    bundle: Path
    device: str = "auto"
    batch: int = 16
    threads: int | None = None  # of one network; None for as many as there are cores


@dataclass(frozen=True, slots=True)
class Done:
    """A unit that is there: the sha256 of its note, its images, and whether they were made just now."""

    note: str
    images: int
    made: bool


def note_path(folder: Path, unit: int) -> Path:
    """The note of a unit of the set in ``folder``."""
    return folder / UNITS / f"{unit:05d}.json"


def make_unit(work: Work) -> Done:
    """Make a unit, unless it is there and whole. Raises `MedvarError` when it cannot be made or written."""
    numbers = work.plan.numbers(work.unit)
    if (there := finished(work.plan, work.unit, work.folder)) is not None:
        return Done(there, len(numbers), False)
    bundle, generator = _engine(work)
    traces: list[Trace] = []
    images: list[FloatArray] = []
    for first in range(0, len(numbers), work.batch):
        generation = generator.finish(generator.start(work.plan.mix.requests(numbers[first : first + work.batch])))
        images.extend(generator.image(generation))
        traces.extend(generation.traces)
        generator.cache.clear()  # nobody comes back to these prefixes
    files = write_images(work.plan, work.unit, work.folder, bundle, images, traces)
    note = {
        "unit": work.unit,
        "images": [numbers.start, numbers.stop - 1],
        "plan": work.plan.identity,
        "synthetic": True,
        "provider": generator.backend.info.provider,
        "files": {path.relative_to(work.folder).as_posix(): _sha256(path) for path in files},
    }
    content = json.dumps(note, indent=1).encode()
    write_files({note_path(work.folder, work.unit): content})
    return Done(hashlib.sha256(content).hexdigest(), len(numbers), True)


def finished(plan: Plan, unit: int, folder: Path) -> str | None:
    """The sha256 of a unit's note, when the unit is of this plan, whole, and every file as it was written."""
    numbers = plan.numbers(unit)
    try:
        content = note_path(folder, unit).read_bytes()
        note = json.loads(content)
        if note["plan"] != plan.identity or note["images"] != [numbers.start, numbers.stop - 1]:
            return None
        if any(_sha256(folder / name) != digest for name, digest in note["files"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MedvarError):
        return None
    return hashlib.sha256(content).hexdigest()


_OWN = threading.local()  # a cluster's worker may have several threads, and a generator serves one


def _engine(work: Work) -> tuple[Bundle, Generator]:
    """The bundle and a generator, loaded once in each thread."""
    from medvar_engine.backends.onnx import OnnxBackend

    wanted = (work.bundle, work.plan.model, work.device, work.threads)
    if getattr(_OWN, "wanted", None) != wanted:
        take_gpu(work.device)
        bundle = read_bundle(work.bundle)
        if bundle.digest != work.plan.model:
            raise MedvarError(f"{work.bundle} is not the model of this set (sha256 {work.plan.model[:12]}…).")
        _OWN.engine = (bundle, Generator(OnnxBackend(bundle, device=work.device, threads=work.threads)))
        _OWN.wanted = wanted
    engine: tuple[Bundle, Generator] = _OWN.engine
    return engine


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
