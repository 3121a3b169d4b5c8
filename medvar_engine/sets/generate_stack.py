"""`generate_stack`: generates the slices of one body, as one NIfTI volume or one DICOM series."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generate.finished_pairs import finished_pairs
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.request import MAX_SEED, MOST_SLICES, Request
from medvar_engine.sets.generate_files import FileOptions, check_free, image_name
from medvar_engine.sets.stack import Stack, near, placed
from medvar_engine.storage import beside, make_folder, take_name, writing
from medvar_engine.write.burn_in import marked
from medvar_engine.write.dicom import Study, modality_of
from medvar_engine.write.formats import files_of, remove_written, write_image
from medvar_engine.write.open_slice_file import MAX_BYTES
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.volume_file import write_volume

SEEDS = 8
"""Seeds with which a slice is drawn until it need not be withheld."""

_HEADER = 1024  # bytes of a NIfTI file beside its pixels, at most
_SLICE = re.compile(r"\d{4}(-mask)?\.dcm")  # files of a series: slices and their masks


@dataclass(frozen=True, slots=True)
class GeneratedStack:
    """The slices of a stack, written."""

    files: tuple[Path, ...]
    risks: tuple[CopyRisk | None, ...]  # of each slice; None without a search for copies


def generate_stack(
    generator: Generator,
    bundle: Bundle,
    requests: Sequence[Request],
    stack: Stack,
    path: Path,
    options: FileOptions,
    *,
    progress: Callable[[int], None] | None = None,
) -> GeneratedStack:
    """Draw the slices of `stack_requests` and write them; see `stack_slices` and `write_stack`."""
    slices = list(stack_slices(generator, bundle, requests, stack, path, options, progress=progress))
    return GeneratedStack(tuple(write_stack(slices, stack, path, options)), tuple(one.copy_risk for one in slices))


def stack_path(folder: Path, request: Request, options: FileOptions) -> Path:
    """Where the stack that begins with ``request`` is written: a volume ``.nii.gz``, or the folder of a series."""
    return folder / f"{image_name(request)}-stack{'.nii.gz' if options.format == 'nifti' else ''}"


def stack_slices(
    generator: Generator,
    bundle: Bundle,
    requests: Sequence[Request],
    stack: Stack,
    path: Path,
    options: FileOptions,
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[OutputImage]:
    """Draw the slices of `stack_requests` one after the other, to be written to ``path``.

    A slice that must be withheld as a possible copy of a training slice is drawn again, with up to `SEEDS` seeds. If
    none helps, the whole stack is withheld, because a stack with a gap is of no use. With ``overwrite``, a withheld
    stack leaves no older one. ``progress`` is called after each scale with 1. Raises `MedvarError` when a stack is
    withheld, when ``path`` exists already, and for a DICOM series of slices that would have no position.
    """
    volume = options.format == "nifti"
    check_free(files_of(path, "nifti") if volume else [path], options)
    if volume and len(requests) * bundle.image_size**2 * 4 > MAX_BYTES - _HEADER:
        raise MedvarError(
            f"{len(requests)} slices make a volume of more than {MAX_BYTES >> 20} MiB, which medvar could not read "
            "back. Generate fewer slices, or a DICOM series."
        )
    copies, before = CopyScreen.of(bundle, options.copy_policy), None
    for number, request in enumerate(requests, 1):
        before, image = _slice(generator, bundle, near(request, before), copies, progress)
        if image is None:
            older = _clear_older(path, options)
            raise MedvarError(
                f"The stack of seed {requests[0].seed} is withheld: slice {number} would lie so near to a training "
                f"slice that it may be a copy, with each of {SEEDS} seeds.{older} Choose another "
                "seed or position, or the copy policy “flag”."
            )
        image = marked(placed(image, stack, requests[0]), options.marks)
        if not volume and modality_of(image) is None:
            raise MedvarError(
                "The slices of this stack would have no position in DICOM, which needs MR, or CT in HU, and "
                f"{request.condition} from {bundle.name} is neither. Write NIfTI, or choose another region or plane."
            )
        yield image


def write_stack(slices: Sequence[OutputImage], stack: Stack, path: Path, options: FileOptions) -> list[Path]:
    """Write slices; returns the files. A new series replaces all slices of an older one, and other files stay."""
    first = slices[0].trace.request
    if options.format == "nifti":
        make_folder(path.parent)
        return write_volume(path, slices)
    make_folder(path)
    return _write_series(path, slices, Study(f"{first.condition} {first.seed} {stack}"))


def _slice(
    generator: Generator,
    bundle: Bundle,
    request: Request,
    copies: CopyScreen,
    progress: Callable[[int], None] | None,
) -> tuple[Generation, OutputImage | None]:
    """A slice with the first of `SEEDS` seeds with which it need not be withheld; without an image if there is none."""
    for attempt in range(SEEDS):
        seed = (request.seed + attempt * MOST_SLICES) % (MAX_SEED + 1)
        generation = generator.start([replace(request, seed=seed)])
        generation = generator.finish(generation, None if attempt else progress)
        pixels, masks = finished_pairs(generator, generation)
        found = screen(pixels, copies)
        if not found.withheld:
            image = OutputImage.of(bundle, generation.trace(0), pixels[0], masks[0])
            return generation, replace(image, copy_risk=found.risks[0])
    return generation, None


def _clear_older(path: Path, options: FileOptions) -> str:
    """With ``overwrite``, remove an older stack, which would be taken for the withheld one; returns what happened."""
    there = path.exists()
    if options.overwrite:
        _remove_older(path, options.format == "nifti")
    if there and path.exists():
        return f" {path} holds files that medvar did not write, which stay."
    return f" The older stack {path} was removed." if there else ""


def _remove_older(path: Path, volume: bool) -> None:
    """Remove an older stack; files of other origin stay."""
    if volume:
        remove_written(path, "nifti")
    elif path.is_dir():
        with writing(path, "its older slices may be incomplete"):
            for older in path.iterdir():
                if _SLICE.fullmatch(older.name) and not older.stem.endswith("-mask"):
                    remove_written(older, "dicom")
            if not any(path.iterdir()):
                path.rmdir()


def _write_series(folder: Path, slices: Sequence[OutputImage], study: Study) -> list[Path]:
    """Write all slices aside, then exchange them for those of an older series, so that two series never mix."""
    partial, files = beside(folder, "partial"), list[Path]()
    try:
        with writing(folder, "its older slices, if any, may be incomplete"):
            partial.mkdir()
            for number, image in enumerate(slices, 1):
                files += write_image(partial / f"{number:04d}.dcm", "dicom", image, study, number)
            for older in folder.iterdir():
                if _SLICE.fullmatch(older.name):
                    older.unlink()
            for file in files:
                take_name(file, folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [folder / file.name for file in files]
