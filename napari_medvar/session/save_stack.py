"""Generates a stack of slices and writes it to files. It uses neither Qt nor napari."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.request import Request
from medvar_engine.sets.generate_files import FileOptions
from medvar_engine.sets.generate_stack import stack_path, stack_slices, write_stack
from medvar_engine.sets.stack import Stack, stack_requests
from napari_medvar.session.opened_bundle import OpenedBundle
from napari_medvar.session.save_images import SaveOptions


@dataclass(frozen=True, slots=True)
class StackProgress:
    """Reports one more slice, and after the last one where the stack was written."""

    done: int
    total: int
    path: Path | None = None  # the volume, or the folder of the series


def save_stack(
    opened: OpenedBundle,
    request: Request,
    stack: Stack,
    folder: Path,
    form: SaveOptions,
    should_stop: Callable[[], bool],
) -> Iterator[StackProgress]:
    """Draw the slices of a stack, and write them once all are drawn. If it is stopped, nothing is written.

    The format of ``form`` is ``nifti`` or ``dicom``. Raises `MedvarError` rather than overwrite a file, when the stack
    is withheld as a possible copy, and for a stack that the model cannot draw.
    """
    options = FileOptions(form.format, form.copy_policy, form.marks)
    requests = stack_requests(opened.bundle, request.condition, request.seed, request.sampling, stack)
    path, slices = stack_path(folder, requests[0], options), []
    for image in stack_slices(opened.generator, opened.bundle, requests, stack, path, options):
        slices.append(image)
        if should_stop():
            return
        yield StackProgress(len(slices), stack.slices)
    write_stack(slices, stack, path, options)
    yield StackProgress(stack.slices, stack.slices, path)
