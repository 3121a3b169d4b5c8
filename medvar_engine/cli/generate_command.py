"""``medvar generate``: makes synthetic images with a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medvar_engine.cli.console import print_message, print_result, progress

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle
    from medvar_engine.generate.generator import Generator
    from medvar_engine.masks.structures import MaskArray
    from medvar_engine.remote.remote_backend import RemoteBackend
    from medvar_engine.request import Request
    from medvar_engine.sets.generate_files import FileOptions
    from medvar_engine.sets.stack import Stack


def generate(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("synthetic"),
    bundle: Annotated[str | None, typer.Option(help="Folder or name of a bundle; the shipped one by default.")] = None,
    modality: Annotated[
        str | None, typer.Option(help="Modality, CT or MR; `medvar info` lists the labels of a bundle.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Body region, e.g. brain.")] = None,
    plane: Annotated[str | None, typer.Option(help="Plane, e.g. axial, coronal or sagittal.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset label, if the model has any.")] = None,
    contrast: Annotated[
        str | None, typer.Option(help="Contrast, e.g. T1 or FLAIR, if the model was trained with contrasts.")
    ] = None,
    position: Annotated[
        float | None,
        typer.Option(help="Position of the slice, 0 to 1: feet to head, back to front, or left to right."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed of the first image; it increases by one for each further image.", min=0)
    ] = 0,
    count: Annotated[
        int | None, typer.Option(help="Number of images; by default 1, or the sum of the counts in --mix.", min=1)
    ] = None,
    mix: Annotated[
        Path | None, typer.Option(help="YAML file of conditions and their shares, for a synthetic dataset.")
    ] = None,
    file_format: Annotated[
        Literal["png", "png16", "nifti", "dicom", "shards"] | None,
        typer.Option(
            "--format",
            help="File format: png (8-bit grey, the default), png16, nifti or dicom; datasets are shards by default.",
        ),
    ] = None,
    layout: Annotated[
        Literal["shards", "imagefolder", "bids", "nnunet", "decathlon", "coco"] | None,
        typer.Option(help="Layout of the folder of a synthetic dataset."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Mask to draw the images to (PNG, or NIfTI with one slice), for bundles that make masks."),
    ] = None,
    stack: Annotated[
        int | None,
        typer.Option(help="Number of slices of one body, drawn one after the other: a NIfTI volume or a DICOM series."),
    ] = None,
    slice_mm: Annotated[
        float | None, typer.Option(help="Distance between the slices of --stack, mm; 3 by default.")
    ] = None,
    to_position: Annotated[
        float | None, typer.Option(help="Position of the last slice of --stack; --position is that of the first.")
    ] = None,
    show_scales: Annotated[
        bool, typer.Option("--show-scales", help="Also write a contact sheet of all scales.")
    ] = False,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly the condition is followed; 0 switches guidance off.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Below 1 gives more typical images, above 1 more varied ones; 0 takes the likeliest tokens."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens; 0 uses all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens that together have this probability.")
    ] = None,
    batch: Annotated[
        int, typer.Option(help="Number of images made together; the result does not depend on it.", min=1)
    ] = 16,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device that runs the networks.")] = "auto",
    server: Annotated[
        str | None, typer.Option(help="Address of a `medvar serve`, e.g. https://host:8765; it runs its own bundle.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token of the server in its first line.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of parallel processes for a synthetic dataset.", min=1)] = 1,
    cluster: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://host:8786.")] = None,
    copy_policy: Annotated[
        Literal["withhold", "flag", "off"] | None,
        typer.Option(
            help="What is done with images that may be copies of training slices; withhold by default, if the bundle "
            "has a training index."
        ),
    ] = None,
    burn_in: Annotated[
        bool, typer.Option("--burn-in", help="Write SYNTHETIC into the pixels, where the image is darkest.")
    ] = False,
    invisible_mark: Annotated[
        bool,
        typer.Option(
            "--invisible-mark", help="Add an invisible pattern of half a grey level; `medvar info --mark` detects it."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace files of the same name; where an image is withheld, the older one is removed."
        ),
    ] = False,
) -> None:
    """Make synthetic images, each with the information to make it again.

    Without any label, they are of the default slice type of the bundle, if it has one.

    --mix, --layout, --format shards, --workers or --cluster make a synthetic dataset: a folder written in units.
    After an interruption, the same command continues where it stopped.
    """
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.conditions import Condition
    from medvar_engine.errors import MedvarError
    from medvar_engine.request import Request
    from medvar_engine.sets.generate_files import FileOptions
    from medvar_engine.sets.mixture import Mixture
    from medvar_engine.sets.mixture_file import read_mixture
    from medvar_engine.sets.stack import Stack, stack_requests
    from medvar_engine.write.marks import Marks

    remote = _connected(server, token_file, bundle) if server else None
    model = remote.bundle if remote else open_bundle(bundle)
    settings = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    sampling = model.sampling.updated({name: value for name, value in settings.items() if value is not None})
    marks = Marks(burn_in, invisible_mark)
    condition = Condition(modality, region, plane, dataset, contrast, position)
    if condition == Condition(position=position) and not mix:
        default = model.default_condition or condition
        condition = default if position is None else replace(default, position=position)
    model.labels.encode(condition)
    if stack is not None:
        if mix or layout or mask or count or show_scales or file_format not in (None, "nifti", "dicom"):
            raise MedvarError("A stack is one NIfTI volume or DICOM series: leave out options of images or datasets.")
        if workers > 1 or cluster:
            raise MedvarError("A stack is made by one process: leave out --workers and --cluster.")
        slices = Stack(stack, 3.0 if slice_mm is None else slice_mm, to_position)
        requests = stack_requests(model, condition, seed, sampling, slices)
        options = FileOptions(file_format or "nifti", copy_policy, marks, overwrite=overwrite)
        _generate_stack(model, requests, slices, out, options, device, remote)
        return
    if slice_mm is not None or to_position is not None:
        raise MedvarError(
            "--slice-mm and --to-position are for the slices of a stack: leave them out, or give --stack."
        )
    given = _given_mask(mask, model) if mask else None
    as_dataset = mix or layout or file_format == "shards" or workers > 1 or cluster
    if given is not None and as_dataset:
        raise MedvarError(
            "A synthetic dataset has masks of its own: leave out --mask, or leave out --mix, --layout and --workers."
        )
    if as_dataset:
        from medvar_engine.cli.generate_set import generate_set
        from medvar_engine.sets.layouts import set_format
        from medvar_engine.sets.make_set import Resources

        if remote:
            raise MedvarError(
                "A synthetic dataset is made on the computer of its bundle: run this on the server itself, "
                "without --server."
            )
        own = {"seed": bool(seed), "a condition": bool(condition.to_dict()), "sampling": sampling != model.sampling}
        if mix and (said := [name for name, given in own.items() if given]):
            raise MedvarError(f"With --mix, {' and '.join(said)} are given in {mix}; leave them out here.")
        if show_scales or overwrite:
            raise MedvarError("--show-scales and --overwrite do not apply to a synthetic dataset; choose a new folder.")
        made_of = read_mixture(mix, model) if mix else Mixture.of(condition, sampling, seed)
        kind, computing = set_format(layout, file_format), Resources(device, batch, workers, cluster)
        generate_set(out, model, made_of, count, kind, computing, copy_policy, marks)
    else:
        requests = [Request(condition, seed + i, sampling) for i in range(count or 1)]
        options = FileOptions(file_format or "png", copy_policy, marks, show_scales, overwrite)
        _generate_files(model, requests, out, options, given, batch, device, remote)


def _generate_files(
    model: Bundle,
    requests: list[Request],
    out: Path,
    options: FileOptions,
    mask: MaskArray | None,
    batch: int,
    device: str,
    remote: RemoteBackend | None,
) -> None:
    from medvar_engine.errors import MedvarError
    from medvar_engine.sets.generate_files import generate_files

    generator, written = _generator(model, device, remote), 0
    with _generating(len(requests) * len(model.schedule)) as advance:
        made = generate_files(generator, model, requests, out, options, mask=mask, batch=batch, progress=advance)
        for image in made:
            if image.copy_risk and image.copy_risk.flagged:
                print_message(f"{'flagged' if image.files else 'withheld'}: {image.path.name} lies {image.copy_risk}")
                if not image.files and image.path.exists():
                    print_message(f"{image.path} stays: medvar did not write it. It does not show this seed.")
            written += bool(image.files)
            for path in image.files:
                print_result(path)
    if not written:
        raise MedvarError(
            "Nothing was written, because every image may be a copy of a training slice. Try other seeds or a higher "
            "--temperature; --copy-policy flag writes them nevertheless."
        )


def _generate_stack(
    model: Bundle,
    requests: list[Request],
    stack: Stack,
    out: Path,
    options: FileOptions,
    device: str,
    remote: RemoteBackend | None,
) -> None:
    from medvar_engine.sets.generate_stack import generate_stack, stack_path

    generator = _generator(model, device, remote)
    path = stack_path(out, requests[0], options)
    with _generating(len(requests) * len(model.schedule)) as advance:
        made = generate_stack(generator, model, requests, stack, path, options, progress=advance)
    for number, risk in enumerate(made.risks, 1):
        if risk and risk.flagged:
            print_message(f"flagged: slice {number} of {len(made.risks)} lies {risk}")
    for written in made.files:
        print_result(written)


def _generator(model: Bundle, device: str, remote: RemoteBackend | None) -> Generator:
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.generate.generator import Generator

    if remote is None:
        model.verify()
    generator = Generator(remote or OnnxBackend(model, device=device))
    print_message(f"{model.name} on {generator.backend.info.provider}")
    return generator


@contextlib.contextmanager
def _generating(scales: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over the scales of all images; called with the number of images that have one more scale."""
    with progress() as bar:
        task = bar.add_task("generating", total=scales)

        def advance(images: int) -> None:
            bar.update(task, advance=images)

        yield advance


def _given_mask(path: Path, model: Bundle) -> MaskArray:
    from medvar_engine.errors import MedvarError
    from medvar_engine.write.mask_file import read_mask

    if not model.structures:
        raise MedvarError(f"{model.name} makes images without masks, so none can be given; leave --mask out.")
    return read_mask(path, model.structures, model.image_size)


def _connected(server: str, token_file: Path | None, bundle: str | None) -> RemoteBackend:
    from medvar_engine.errors import MedvarError
    from medvar_engine.remote.connection import Server, read_token
    from medvar_engine.remote.remote_backend import RemoteBackend

    if bundle:
        raise MedvarError(f"The bundle is the one that {server} serves: leave out --bundle or --server.")
    return RemoteBackend(Server(server, read_token(token_file) if token_file else None))
