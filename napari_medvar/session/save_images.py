"""Writes images of the history and synthetic datasets to files. It uses neither Qt nor napari."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.finished_pairs import finished_pairs
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray
from medvar_engine.memorisation.copy_risk import CopyPolicy
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.request import MAX_SEED, Request, Sampling
from medvar_engine.storage import make_folder, slug
from medvar_engine.types import FloatArray
from medvar_engine.write.burn_in import marked
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import ENDINGS, files_of, write_image
from medvar_engine.write.marks import UNMARKED, Marks
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.opened_bundle import OpenedBundle
from napari_medvar.session.previews import Preview
from napari_medvar.session.trace_tree import Node

_MOST = 32  # images generated together
_PATIENCE = 1.0  # seconds that they may take together, because Stop waits for a part of that time


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How images are written."""

    format: str  # one of `write.formats`
    copy_policy: CopyPolicy | None = None  # None: withhold copies if the bundle has a training index
    marks: Marks = UNMARKED  # the marks written into the pixels
    own_source: bool = (
        False  # whether encoded real images belong to the user; images made from them then never count as copies
    )


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Reports one more image that was written or withheld."""

    done: int
    total: int
    path: Path | None  # of the image written last
    withheld: tuple[str, ...] = ()  # a sentence for each image that may be a copy of a training slice

    def __str__(self) -> str:
        """The report for users."""
        if self.total == 1 and self.path:
            return f"Saved {self.path}"
        last = f", the last: {self.path}" if self.path else ""
        copies = f"; {len(self.withheld)} withheld, {self.withheld[-1]}" if self.withheld else ""
        return f"{self.done} of {self.total} written{last}{copies}"


class _Writer:
    """Writes images into one study and counts them."""

    def __init__(self, opened: OpenedBundle, form: SaveOptions, study: Study, total: int) -> None:
        self._bundle, self._form, self._study = opened.bundle, form, study
        self._structures = opened.generator.backend.info.structures
        self._copies = CopyScreen.of(opened.bundle, form.copy_policy)
        self._written = SaveProgress(0, total, None)

    def write(
        self,
        path: Path,
        trace: Trace,
        pixels: FloatArray,
        mask: MaskArray | None,
        image_space: ImageSpace | None = None,
    ) -> SaveProgress:
        """Write one image, and its mask if it has one, unless it is withheld.

        ``image_space`` is given if the image came from a real image.
        """
        owned = [0] if self._form.own_source and trace.of_real_image else []
        found, before = screen([pixels], self._copies, owned), self._written
        if found.withheld:
            self._written = replace(before, withheld=(*before.withheld, f"{path.name} {found.risks[0]}"))
            return self._written
        image_space = image_space or ImageSpace.of(self._bundle, trace.request.condition)
        image = replace(image_space.output_image(trace, pixels, mask, self._structures), copy_risk=found.risks[0])
        number = before.done + len(before.withheld) + 1
        write_image(path, self._form.format, marked(image, self._form.marks), self._study, number)
        self._written = replace(before, done=before.done + 1, path=path)
        return self._written


def file_name(trace: Trace, name: str = "") -> str:
    """A file name without suffix, e.g. ``ct-chest-axial-seed5``, that begins with the user's name of the image."""
    words = [name, *trace.request.condition.words, f"seed{trace.request.seed}"]
    return "-".join(filter(None, (slug(word).strip("_") for word in words)))[:120]


def write_image_files(
    opened: OpenedBundle, nodes: Sequence[Node], previews: Iterable[Preview], folder: Path, form: SaveOptions
) -> Iterator[SaveProgress]:
    """Write the finished images of ``nodes``, and their masks; ``previews`` yields the finest scale of each.

    Images of the same name get a number. Raises `MedvarError` rather than overwrite a file.
    """
    names = _distinct([file_name(node.trace, node.name) for node in nodes])
    paths = _free_paths(folder, names, form.format)
    writer = _Writer(opened, form, Study(folder.name or "medvar"), len(paths))
    for node, preview, path in zip(nodes, previews, paths, strict=True):
        yield writer.write(path, node.trace, preview.pixels, preview.mask, node.image_space)


def write_set(
    opened: OpenedBundle,
    orders: Sequence[tuple[Condition, int]],
    sampling: Sampling,
    seed: int,
    folder: Path,
    form: SaveOptions,
    should_stop: Callable[[], bool],
) -> Iterator[SaveProgress]:
    """Generate a number of images of each condition, with seeds that count up from ``seed``, and write each at once.

    If it is stopped, all files written are complete. As many images are generated together as take about a second.
    Raises `MedvarError` rather than overwrite a file.
    """
    asked = [condition for condition, count in orders for _ in range(count)]
    if seed + len(asked) - 1 > MAX_SEED:
        raise MedvarError(f"Seeds would exceed {MAX_SEED}. Begin with a smaller seed.")
    requests = [Request(condition, seed + i, sampling) for i, condition in enumerate(asked)]
    make_folder(folder)
    waiting, together = iter(requests), 1
    writer = _Writer(opened, form, Study(folder.name or "medvar"), len(requests))
    while batch := list(islice(waiting, together)):
        began = perf_counter()
        start = opened.generator.start(batch)
        *_, generation = (start, *opened.generator.run(start, should_stop=should_stop))
        if not generation.complete:
            return
        images, masks = finished_pairs(opened.generator, generation)
        together = max(1, min(_MOST, 2 * together, int(len(batch) * _PATIENCE / (perf_counter() - began))))
        paths = _free_paths(folder, [file_name(trace) for trace in generation.traces], form.format)
        for trace, image, mask, path in zip(generation.traces, images, masks, paths, strict=True):
            yield writer.write(path, trace, image, mask)


def _free_paths(folder: Path, names: Sequence[str], form: str) -> list[Path]:
    make_folder(folder)
    depth = "-16bit" if form == "png16" else ""  # distinguishes them from 8-bit files, which have the same suffix
    paths = [folder / f"{name}{depth}{ENDINGS[form]}" for name in names]
    for path in paths:
        for file in files_of(path, form):
            if file.exists():
                raise MedvarError(f"{file} exists already. Choose another folder, or move the file.")
    return paths


def _distinct(names: Sequence[str]) -> list[str]:
    """Distinct names: a number is appended to every repeated name."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result
