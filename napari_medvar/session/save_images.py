"""Pictures to files: those of the history, and whole sets. No Qt and no napari."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.memorisation.copy_risk import CopyPolicy
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.request import MAX_SEED, Request, Sampling
from medvar_engine.storage import slug
from medvar_engine.types import FloatArray
from medvar_engine.write.burn_in import marked
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import ENDINGS, files_of, write_picture
from medvar_engine.write.marks import UNMARKED, Marks
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.opened_model import Model
from napari_medvar.session.trace_tree import Node

_MOST = 32  # pictures in the making at a time
_PATIENCE = 1.0  # seconds that they may take: Stop waits for a part of it


@dataclass(frozen=True, slots=True)
class Form:
    """How pictures are written."""

    format: str  # one of `write.formats`
    copy_policy: CopyPolicy | None = None  # None: withhold copies if the bundle has a training index
    marks: Marks = UNMARKED  # what is written into the pixels
    own_source: bool = (
        False  # whether real images that were encoded are the user's: then nothing made of them is a copy
    )


@dataclass(frozen=True, slots=True)
class Written:
    """One picture more is on disk, or withheld."""

    done: int
    total: int
    path: Path | None  # the last on disk
    withheld: tuple[str, ...] = ()  # what is said of each that may be a copy of a training slice

    def __str__(self) -> str:
        """For the user."""
        last = f", the last: {self.path}" if self.path else ""
        copies = f"; {len(self.withheld)} withheld, {self.withheld[-1]}" if self.withheld else ""
        return f"{self.done} of {self.total} written{last}{copies}"


class _Writer:
    """Writes pictures into one study, and counts."""

    def __init__(self, model: Model, form: Form, study: Study, total: int) -> None:
        self._bundle, self._form, self._study = model.bundle, form, study
        self._copies = CopyScreen.of(model.bundle, form.copy_policy)
        self._written = Written(0, total, None)

    def write(self, path: Path, trace: Trace, pixels: FloatArray, image_space: ImageSpace | None = None) -> Written:
        """Write one picture, which lies in ``image_space`` if it came from a real image, unless it is withheld."""
        owned = [0] if self._form.own_source and trace.of_real_image else []
        found, before = screen([pixels], self._copies, owned), self._written
        if found.withheld:
            self._written = replace(before, withheld=(*before.withheld, f"{path.name} {found.risks[0]}"))
            return self._written
        image_space = image_space or ImageSpace.of(self._bundle, trace.request.condition)
        picture = replace(image_space.picture(trace, pixels), copy_risk=found.risks[0])
        number = before.done + len(before.withheld) + 1
        write_picture(path, self._form.format, marked(picture, self._form.marks), self._study, number)
        self._written = replace(before, done=before.done + 1, path=path)
        return self._written


def file_name(trace: Trace, name: str = "") -> str:
    """Without an ending, e.g. ``ct-chest-axial-seed5``, with what the user calls it in front."""
    words = [name, *trace.request.condition.words, f"seed{trace.request.seed}"]
    return "-".join(filter(None, (slug(word).strip("_") for word in words)))[:120]


def write_pictures(
    model: Model, nodes: Sequence[Node], pixels: Iterable[FloatArray], folder: Path, form: Form
) -> Iterator[Written]:
    """Write finished pictures under their names; ``pixels`` are theirs, ``(H, W)`` in [-1, 1].

    A number tells pictures of the same name apart. Raises `MedvarError` rather than overwrite a file.
    """
    names = _distinct([file_name(node.trace, node.name) for node in nodes])
    paths = _free_paths(folder, names, form.format)
    writer = _Writer(model, form, Study(folder.name or "medvar"), len(paths))
    for node, image, path in zip(nodes, pixels, paths, strict=True):
        yield writer.write(path, node.trace, image, node.image_space)


def write_set(
    model: Model,
    orders: Sequence[tuple[Condition, int]],
    sampling: Sampling,
    seed: int,
    folder: Path,
    form: Form,
    should_stop: Callable[[], bool],
) -> Iterator[Written]:
    """Generate so many pictures of each condition, seeds counting up from ``seed``, and write each at once.

    What is written when it is stopped is whole. As many are made together as the machine makes in about a second.
    Raises `MedvarError` rather than overwrite a file.
    """
    asked = [condition for condition, count in orders for _ in range(count)]
    if seed + len(asked) - 1 > MAX_SEED:
        raise MedvarError(f"Seeds would count up beyond {MAX_SEED}: begin with a smaller one.")
    requests = [Request(condition, seed + i, sampling) for i, condition in enumerate(asked)]
    _make_folder(folder)
    waiting, together = iter(requests), 1
    writer = _Writer(model, form, Study(folder.name or "medvar"), len(requests))
    while batch := list(islice(waiting, together)):
        began = perf_counter()
        start = model.generator.start(batch)
        *_, generation = (start, *model.generator.run(start, should_stop=should_stop))
        if not generation.complete:
            return
        images = model.generator.image(generation)
        together = max(1, min(_MOST, 2 * together, int(len(batch) * _PATIENCE / (perf_counter() - began))))
        paths = _free_paths(folder, [file_name(trace) for trace in generation.traces], form.format)
        for trace, image, path in zip(generation.traces, images, paths, strict=True):
            yield writer.write(path, trace, image)


def _free_paths(folder: Path, names: Sequence[str], form: str) -> list[Path]:
    _make_folder(folder)
    depth = "-16bit" if form == "png16" else ""  # beside those of 8 bits, which end alike
    paths = [folder / f"{name}{depth}{ENDINGS[form]}" for name in names]
    for path in paths:
        for file in files_of(path, form):
            if file.exists():
                raise MedvarError(f"{file} is there already. Choose another folder, or move it away.")
    return paths


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedvarError(f"Cannot make the folder {folder}: {error.strerror or error}. Choose another.") from error


def _distinct(names: Sequence[str]) -> list[str]:
    """A number behind every name that has come before."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result
