"""``medvar features``: computes features of images."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medvar_engine.cli.console import needs, print_message, print_result, progress
from medvar_engine.storage import flush_to_disk, take_name, temporary_of, writing
from medvar_engine.untrusted.plain_npy import open_npy

if TYPE_CHECKING:
    from medvar_engine.types import FloatArray

BATCH = 16
COLUMNS = ("patient", "modality", "region", "plane", "dataset")
_OUTCOME = "nothing was left half-written"


def features(
    images: Annotated[
        Path, typer.Argument(help="Folder written by `medvar prepare`, or a .npy file (N, H, W) in [-1, 1].")
    ],
    out: Annotated[Path, typer.Option(help=".npy file to write.")] = Path("features.npy"),
    bundle: Annotated[str | None, typer.Option(help="Folder or name of a bundle; the shipped one by default.")] = None,
    split: Annotated[Literal["train", "test", "all"], typer.Option(help="Which prepared slices to use.")] = "all",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device that runs the networks.")] = "auto",
    likelihood: Annotated[
        bool, typer.Option("--likelihood", help="Also compute how well every slice type explains an image. Slow.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same name.")] = False,
) -> None:
    """Write multi-scale features of images, one row per image, for scikit-learn and similar libraries.

    Two files are written beside OUT: <name>.columns.csv names the columns, and for prepared slices <name>.rows.csv
    gives the patient and the label of each row.
    """
    import numpy as np

    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.errors import MedvarError
    from medvar_engine.generate.features import (
        feature_names,
        likelihood_features,
        likelihood_names,
        multiscale_features,
    )
    from medvar_engine.generate.generator import Generator
    from medvar_engine.storage import write_files

    if out.suffix != ".npy":
        raise MedvarError(f"Features are written as .npy, so {out} cannot be used: choose {out}.npy.")
    beside = {what: out.with_suffix(f".{what}.csv") for what in ("columns", "rows")}
    if there := [path for path in (out, *beside.values()) if path.exists() and not overwrite]:
        raise MedvarError(f"{there[0]} exists already; choose another name, or give --overwrite.")
    model = open_bundle(bundle)
    count, batch, rows = _prepared(images, split) if images.is_dir() else _array(images)
    if not count:
        raise MedvarError(f"{images} holds no image{'' if split == 'all' else f' of split {split}'}.")
    generator = Generator(OnnxBackend(model, device=device))
    conditions = tuple(slice_type.condition for slice_type in model.slice_types) if likelihood else ()
    if likelihood and not conditions:
        raise MedvarError(f"The bundle {model.path} does not state its training slices, so leave out --likelihood.")

    def made() -> Iterator[FloatArray]:
        with progress() as bar:
            task = bar.add_task("features", total=count)
            for first in range(0, count, BATCH):
                some = batch(first, min(first + BATCH, count))
                values = multiscale_features(generator, some)
                generator.cache.clear()  # no image comes twice
                if conditions:
                    values = np.concatenate([values, likelihood_features(generator, some, conditions)], axis=1)
                yield values.astype("<f4")
                bar.update(task, completed=min(first + BATCH, count))

    temporary = temporary_of(out)
    try:
        width = _write_rows(temporary, out, count, made())
        likely = likelihood_names(generator.backend.info, conditions)
        names = (*feature_names(generator.backend.info, width - len(likely)), *likely)
        contents = {beside["columns"]: _csv(("column", "name"), list(enumerate(names)))}
        if rows is not None:
            contents[beside["rows"]] = _csv(COLUMNS, rows)
        with writing(out, _OUTCOME):
            take_name(temporary, out)
        write_files(contents)
        if rows is None:
            beside["rows"].unlink(missing_ok=True)  # those of older features
    finally:
        with suppress(OSError):
            temporary.unlink()
    print_message(f"{count} images, {width} columns, by {generator.backend.info.provider}")
    print_result(out)


def _write_rows(path: Path, out: Path, count: int, parts: Iterator[FloatArray]) -> int:
    """Write an array of ``count`` rows as .npy to ``path``, which is to become ``out``; returns the number of columns.

    Written in parts, so that memory does not grow with the number of images.
    """
    import numpy as np

    width = 0
    with ExitStack() as opened:
        with writing(out, _OUTCOME):
            file = opened.enter_context(path.open("wb"))
        for part in parts:
            with writing(out, _OUTCOME):
                if not width:
                    width = part.shape[1]
                    head = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
                    np.lib.format.write_array_header_1_0(file, head)
                file.write(part.tobytes())
        with writing(out, _OUTCOME):
            flush_to_disk(file)
    return width


def _prepared(folder: Path, split: str) -> tuple[int, Any, list[tuple[Any, ...]]]:
    """The number of slices, a function that reads a batch, and the metadata of each."""
    try:
        from medvar_engine.data.dataset import SliceDataset
    except ImportError as error:
        raise needs("train", error) from error
    dataset = SliceDataset(folder, split=None if split == "all" else split)
    table = dataset.columns(*COLUMNS)
    rows = list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))
    return len(dataset), lambda first, end: dataset.batch(range(first, end))[:, 0], rows


def _array(path: Path) -> tuple[int, Any, None]:
    """The number of images, and a function that reads a batch. The model checks shape and range."""
    import numpy as np

    from medvar_engine.errors import MedvarError

    try:
        images = open_npy(path)
        if not isinstance(images, np.ndarray) or images.ndim < 3 or images.dtype.kind not in "fiu":
            raise ValueError("not an array of numbers (N, H, W)")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MedvarError(f"{path} is neither a folder of `medvar prepare` nor a .npy of images: {error}.") from error

    def batch(first: int, end: int) -> FloatArray:
        return np.asarray(images[first:end], dtype=np.float32)

    return len(images), batch, None


def _csv(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()
