"""``medvar generate``: a bundle → synthetic images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medvar_engine.cli.console import progress, say, tell

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle
    from medvar_engine.generate.generation import Generation
    from medvar_engine.generate.generator import Generator
    from medvar_engine.memorisation.copy_risk import Memorised
    from medvar_engine.remote.remote_backend import RemoteBackend
    from medvar_engine.request import Request
    from medvar_engine.types import FloatArray
    from medvar_engine.write.marks import Marks


def generate(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("synthetic"),
    bundle: Annotated[str | None, typer.Option(help="Folder or name of a bundle; the shipped one by default.")] = None,
    modality: Annotated[
        str | None, typer.Option(help="e.g. CT or MR; `medvar info` lists what a bundle knows.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="e.g. brain.")] = None,
    plane: Annotated[str | None, typer.Option(help="e.g. axial, coronal or sagittal.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set label, where the model has any.")] = None,
    contrast: Annotated[
        str | None, typer.Option(help="e.g. T1 or FLAIR, where the model was trained with contrasts.")
    ] = None,
    position: Annotated[
        float | None,
        typer.Option(help="Place of the slice, 0 to 1: feet to head, back to front, left to right."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first image; the next one's is one higher.", min=0)] = 0,
    count: Annotated[
        int | None, typer.Option(help="How many images; 1, or what the counts in --mix are together.", min=1)
    ] = None,
    mix: Annotated[
        Path | None, typer.Option(help="YAML file of conditions and their shares: makes a set, which can be stopped.")
    ] = None,
    file_format: Annotated[
        Literal["png", "png16", "nifti", "dicom", "shards"] | None,
        typer.Option("--format", help="png (8 bits of gray) by default, png16, nifti, dicom; a set is shards."),
    ] = None,
    layout: Annotated[
        Literal["shards", "imagefolder", "bids", "nnunet"] | None, typer.Option(help="How a set lies on the disk.")
    ] = None,
    show_scales: Annotated[
        bool, typer.Option("--show-scales", help="Also write a contact sheet of all scales.")
    ] = False,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly to follow the condition; 0 is not at all.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Below 1 plainer, above 1 wilder; 0 the likeliest.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens; 0 from all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens of this probability.")] = None,
    batch: Annotated[int, typer.Option(help="Images made at once; the result does not depend on it.", min=1)] = 16,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    server: Annotated[
        str | None, typer.Option(help="Address of a `medvar serve` that runs its bundle, https://host:8765.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File whose first line is the server's token.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that make a set at the same time.", min=1)] = 1,
    cluster: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://host:8786.")] = None,
    memorised: Annotated[
        Literal["withhold", "mark", "allow"] | None,
        typer.Option(
            help="What becomes of images that may be copies of training slices: withhold, where the bundle knows them."
        ),
    ] = None,
    burn_in: Annotated[
        bool, typer.Option("--burn-in", help="Write SYNTHETIC into the pixels, where the image is emptiest.")
    ] = False,
    invisible_mark: Annotated[
        bool,
        typer.Option("--invisible-mark", help="Add a pattern of half a gray level; `medvar info --mark` looks for it."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same name.")] = False,
) -> None:
    """Make synthetic images, each written with all it takes to make it again.

    With --mix, --layout, --format shards, --workers or --cluster they are a set: a folder that is made unit by unit.
    Stopped at any point, the same command goes on where it was.
    """
    from medvar_engine.bundle.read import find_bundle, read_bundle
    from medvar_engine.conditions import Condition
    from medvar_engine.errors import MedvarError
    from medvar_engine.request import Request, Sampling
    from medvar_engine.sets.mixture import Mix
    from medvar_engine.sets.mixture_file import read_mix
    from medvar_engine.write.marks import Marks

    remote = _connected(server, token_file, bundle) if server else None
    model = remote.bundle if remote else read_bundle(find_bundle(bundle))
    default = model.sampling
    sampling = Sampling(
        default.guidance if guidance is None else guidance,
        default.temperature if temperature is None else temperature,
        default.top_k if top_k is None else top_k,
        default.top_p if top_p is None else top_p,
        default.even_guidance,
    )
    marks = Marks(burn_in, invisible_mark)
    condition = Condition(modality, region, plane, dataset, contrast, position)
    model.labels.encode(condition)
    if mix or layout or file_format == "shards" or workers > 1 or cluster:
        from medvar_engine.cli.generate_set import generate_set

        if remote:
            raise MedvarError("A set is made where its bundle is: run this on the server's computer, without --server.")
        own = {"seed": bool(seed), "a condition": bool(condition.to_dict()), "sampling": sampling != default}
        if mix and (said := [name for name, given in own.items() if given]):
            raise MedvarError(f"With --mix, {' and '.join(said)} are given in {mix}; leave them out here.")
        if show_scales or overwrite:
            raise MedvarError("A set takes neither --show-scales nor --overwrite; choose a new folder for another set.")
        made_of = read_mix(mix, model) if mix else Mix.of(condition, sampling, seed)
        generate_set(out, model, made_of, count, file_format, layout, device, batch, workers, cluster, memorised, marks)
    else:
        requests = [Request(condition, seed + i, sampling) for i in range(count or 1)]
        form = file_format or "png"
        _generate_files(out, model, requests, form, show_scales, batch, device, memorised, marks, overwrite, remote)


def _generate_files(
    out: Path,
    model: Bundle,
    requests: list[Request],
    file_format: str,
    show_scales: bool,
    batch: int,
    device: str,
    memorised: Memorised | None,
    marks: Marks,
    overwrite: bool,
    remote: RemoteBackend | None,
) -> None:
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.errors import MedvarError
    from medvar_engine.generate.generator import Generator
    from medvar_engine.memorisation.training_index import gate_of
    from medvar_engine.write.burn_in import marked
    from medvar_engine.write.dicom import Study
    from medvar_engine.write.formats import write_picture
    from medvar_engine.write.picture import Picture

    count, first = len(requests), requests[0]
    paths = [_path(out, request, file_format) for request in requests]
    _check_free(paths, file_format, show_scales, overwrite)
    if model.image_channels != 1:
        raise MedvarError(
            f"Only gray images can be written yet, but {model.name} makes {model.image_channels} channels."
        )
    for name in () if remote else model.sha256:  # damage shows before anything is made: some graphs are loaded late
        model.read(name)
    gate, withheld = gate_of(model, memorised), 0
    generator = Generator(remote or OnnxBackend(model, device=device))
    _make_folder(out)
    info = generator.backend.info
    tell(f"{model.name} on {info.provider}")
    study = Study(f"{info.model} {first.condition} {first.seed} {count}")
    with progress() as bar:
        task = bar.add_task("generating", total=count * len(model.schedule))
        for start in range(0, count, batch):
            generation = generator.start(requests[start : start + batch])
            for longer in generator.run(generation):
                generation = longer
                bar.update(task, advance=len(generation.requests))
            images = generator.image(generation)
            kept: dict[int, Path] = {}
            for i, path in enumerate(paths[start : start + batch]):
                nearness = gate.nearness(images[i]) if gate else None
                if nearness and nearness.flagged:
                    tell(f"{'marked' if memorised == 'mark' else 'withheld'}: {path.name} lies {nearness}")
                    if memorised != "mark":
                        withheld += 1
                        continue
                kept[i] = path
                picture = replace(Picture.of(model, generation.trace(i), images[i]), nearness=nearness)
                for written in write_picture(path, file_format, marked(picture, marks), study, start + i + 1):
                    say(written)
            if show_scales:
                for written in _write_sheets(generator, generation, images, kept):
                    say(written)
    if withheld == count:
        raise MedvarError(
            "Nothing was written, for every image may be a copy of a training slice. Try other seeds or a higher "
            "--temperature; --memorised mark writes them all the same, marked."
        )


def _connected(server: str, token_file: Path | None, bundle: str | None) -> RemoteBackend:
    from medvar_engine.errors import MedvarError
    from medvar_engine.remote.connection import Server, read_token
    from medvar_engine.remote.remote_backend import RemoteBackend

    if bundle:
        raise MedvarError(f"The bundle is the one that {server} serves: leave out --bundle or --server.")
    return RemoteBackend(Server(server, read_token(token_file) if token_file else None))


def _write_sheets(
    generator: Generator, generation: Generation, images: FloatArray, paths: Mapping[int, Path]
) -> Iterator[Path]:
    from medvar_engine.write.contact_sheet import scale_labels, write_contact_sheet

    # The preview of the finest scale is the image itself.
    previews = [*(generator.preview(generation, k) for k in range(generation.depth - 1)), images]
    labels = scale_labels(generator.backend.info.schedule)
    for i, path in paths.items():
        yield write_contact_sheet(_sheet(path), [preview[i] for preview in previews], labels, generation.trace(i))


def _path(out: Path, request: Request, file_format: str) -> Path:
    from medvar_engine.storage import slug
    from medvar_engine.write.formats import ENDINGS

    name = "-".join(map(slug, [*request.condition.words, f"seed{request.seed}"]))
    return out / (name + ENDINGS[file_format])


def _sheet(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0] + "-scales.png")


def _make_folder(out: Path) -> None:
    from medvar_engine.errors import MedvarError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedvarError(f"Cannot make the folder {out}: {error.strerror or error}. Choose another --out.") from error


def _check_free(paths: list[Path], file_format: str, show_scales: bool, overwrite: bool) -> None:
    from medvar_engine.errors import MedvarError
    from medvar_engine.write.formats import files_of

    wanted = [file for path in paths for file in files_of(path, file_format)]
    if show_scales:
        wanted += map(_sheet, paths)
    taken = [path for path in wanted if path.exists()]
    if taken and not overwrite:
        raise MedvarError(f"{taken[0]} exists already. Choose another --out or --seed, or pass --overwrite.")
