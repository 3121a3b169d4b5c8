"""`generate_files`: generates images for requests and writes each to a file with its provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generate.finished_pairs import finished_pairs
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray
from medvar_engine.memorisation.copy_risk import CopyPolicy, CopyRisk
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.request import Request
from medvar_engine.storage import make_folder, remove_older, slug
from medvar_engine.types import FloatArray
from medvar_engine.write.burn_in import marked
from medvar_engine.write.contact_sheet import scale_labels, write_contact_sheet
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import ENDINGS, files_of, remove_written, write_image
from medvar_engine.write.marks import UNMARKED, Marks
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import check_written


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How images are written."""

    format: str = "png"  # a name in `medvar_engine.write.formats.ENDINGS`
    copy_policy: CopyPolicy | None = None  # None: withhold copies if the bundle has a training index
    marks: Marks = UNMARKED  # marks in the pixels
    contact_sheet: bool = False  # whether the previews of all scales are written too
    overwrite: bool = False  # replaces older images; those that the copy policy withholds leave none of their name


@dataclass(frozen=True, eq=False, slots=True)
class GeneratedImage:
    """One finished image."""

    path: Path  # its file; for a withheld image the file that was not written
    trace: Trace
    pixels: FloatArray  # (H, W) in [-1, 1]
    copy_risk: CopyRisk | None  # None without a search for copies
    files: tuple[Path, ...]  # written files; empty for a withheld image


def generate_files(
    generator: Generator,
    bundle: Bundle,
    requests: Sequence[Request],
    folder: Path,
    options: FileOptions | None = None,
    *,
    mask: MaskArray | None = None,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Iterator[GeneratedImage]:
    """Generate an image for each request, and write it to ``folder`` as soon as its batch is finished.

    Args:
        generator: runs the networks of ``bundle``.
        bundle: gives the meaning of pixels; its images must be grey.
        requests: one for each image, in the order of writing.
        folder: created if it does not exist.
        options: format, copy policy and marks.
        mask: ``(H, W)``, a given mask for the images, for bundles with masks; None draws masks, too.
        batch: number of images generated together; the result does not depend on it.
        progress: called with the number of images of which one more scale is drawn.

    Raises:
        MedvarError: before anything is generated, when a file exists already, ``folder`` cannot be created, or the
        bundle lacks the training index that the copy policy needs.

    Example:
        >>> bundle = read_bundle(find_bundle("demo"))  # doctest: +SKIP
        >>> requests = [Request(Condition("CT", "chest"), seed) for seed in range(4)]
        >>> for image in generate_files(Generator(OnnxBackend(bundle)), bundle, requests, Path("chests")):
        ...     print(image.files)
    """
    if not requests:
        return iter(())
    options = options or FileOptions()
    paths = [folder / (image_name(request) + ENDINGS[options.format]) for request in requests]
    # also files that would only seem to belong to a new image
    check_free([file for path in paths for file in (*files_of(path, options.format), _sheet_path(path))], options)
    if bundle.image_channels != 1:
        raise MedvarError(
            f"Only grey images can be written, but {bundle.name} makes images with {bundle.image_channels} channels."
        )
    copies = CopyScreen.of(bundle, options.copy_policy)
    make_folder(folder)
    return _generated(generator, bundle, requests, paths, options, copies, mask, batch, progress)


def image_name(request: Request) -> str:
    """The file name of an image without suffix, e.g. ``ct-chest-axial-seed5``."""
    return "-".join(map(slug, [*request.condition.words, f"seed{request.seed}"]))


def _generated(
    generator: Generator,
    bundle: Bundle,
    requests: Sequence[Request],
    paths: Sequence[Path],
    options: FileOptions,
    copies: CopyScreen,
    mask: MaskArray | None,
    batch: int,
    progress: Callable[[int], None] | None,
) -> Iterator[GeneratedImage]:
    first, scales = requests[0], len(generator.backend.info.schedule)
    study = Study(f"{generator.backend.info.bundle_id} {first.condition} {first.seed} {len(requests)}")
    for start in range(0, len(requests), batch):
        some = requests[start : start + batch]
        given = None if mask is None else np.stack([mask] * len(some))
        begun = generator.start(some) if given is None else generator.from_masks(given, some)
        generation = generator.finish(begun, progress)
        images, masks = finished_pairs(generator, generation)
        found = screen(images, copies)
        # The preview of the finest scale is the image itself.
        coarse = [generator.preview(generation, k) for k in range(scales - 1)] if options.contact_sheet else []
        for i, (trace, pixels, risk) in enumerate(zip(generation.traces, images, found.risks, strict=True)):
            path, files = paths[start + i], list[Path]()
            if i in found.kept:
                image = replace(OutputImage.of(bundle, trace, pixels, masks[i]), copy_risk=risk)
                image = marked(image, options.marks)
                files = write_image(path, options.format, image, study, start + i + 1)
                if options.contact_sheet:
                    previews = [*(preview[i] for preview in coarse), pixels]
                    labels = scale_labels(generator.backend.info.schedule)
                    files.append(write_contact_sheet(_sheet_path(path), previews, labels, trace))
                else:
                    remove_older(_sheet_path(path), check_written)
            elif options.overwrite:  # an older image would be taken for the withheld one
                remove_written(path, options.format)
                remove_older(_sheet_path(path), check_written)
            yield GeneratedImage(path, trace, pixels, risk, tuple(files))


def _sheet_path(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0] + "-scales.png")


def check_free(files: Iterable[Path], options: FileOptions) -> None:
    """Raise `MedvarError` for an existing file, unless the options allow to overwrite it."""
    if not options.overwrite and (taken := [path for path in files if path.exists()]):
        raise MedvarError(
            f"{taken[0]} exists already. Choose another folder or seed, or allow overwriting (`--overwrite`)."
        )
