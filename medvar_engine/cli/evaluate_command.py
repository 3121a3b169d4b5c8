"""``medvar evaluate``: measures quality, diversity and privacy of synthetic images."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medvar_engine.cli.console import needs, print_message, print_result, progress
from medvar_engine.storage import sha256_of
from medvar_engine.untrusted import plain_json

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle
    from medvar_engine.data.dataset import SliceDataset
    from medvar_engine.encoders.encoder import Encoder
    from medvar_engine.encoders.simclr_training import SimCLRTraining
    from medvar_engine.evaluate.images.synthetic_images import Synthetic
    from medvar_engine.evaluate.membership import MembershipInference
    from medvar_engine.evaluate.metrics.metric_table import MetricValue
    from medvar_engine.evaluate.pairs.segmentation_utility import SegmentationUtility
    from medvar_engine.evaluate.utility import Utility
    from medvar_engine.generate.generator import Generator
    from medvar_engine.sets.mixture import Mixture

evaluate = typer.Typer(name="evaluate", help="Measure quality, diversity and privacy of synthetic images.")

Task = Literal["region", "plane", "modality", "segmentation"]
Slices = Annotated[Path, typer.Option("--data", help="Prepared slices that the model was trained on.")]


@evaluate.command()
def images(
    synthetic: Annotated[
        str, typer.Argument(help="A synthetic dataset, a folder of PNG, NIfTI or DICOM files, or a bundle.")
    ],
    data: Slices,
    out: Annotated[
        Path, typer.Option(help="HTML page to write; metrics and findings are written beside it as .json and .md.")
    ] = Path("evaluation.html"),
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="Another encoder: FILE, or NAME=FILE with a known name; repeat for more. Two are always used."
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for cached features, to continue an interrupted run.")
    ] = None,
    count: Annotated[int, typer.Option(help="Number of images to make if a bundle is given.", min=24)] = 256,
    steps: Annotated[int | None, typer.Option(help="Steps of training the encoder; 600 by default.", min=1)] = None,
    utility: Annotated[
        Task | None,
        typer.Option(help="Also measure whether the images help to train a classifier of this label, or segmentation."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device that makes the images: auto, cpu or cuda.")] = "auto",
) -> None:
    """Compare synthetic images with real ones, and write a report page."""
    try:
        from dataclasses import replace

        from medvar_engine.data.dataset import SliceDataset
        from medvar_engine.encoders.encoder import open_encoder
        from medvar_engine.encoders.simclr_training import trained_simclr
        from medvar_engine.evaluate.encoded_slices import check_structures
        from medvar_engine.evaluate.evaluation import evaluate as judge
        from medvar_engine.evaluate.images.synthetic_images import mixture_like, open_synthetic
        from medvar_engine.evaluate.pairs.segmentation_utility import check_segmentation
        from medvar_engine.evaluate.reconstruction import measure_reconstruction
        from medvar_engine.evaluate.report.card_section import to_card
        from medvar_engine.evaluate.report.evaluation_page import page, to_dict
        from medvar_engine.evaluate.stack_smoothness import measure_stacks
    except ImportError as error:
        raise needs("train,cpu", error) from error
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.generate.generator import Generator
    from medvar_engine.storage import write_files

    kept = cache or out.with_suffix(".cache")
    training, held_out = SliceDataset(data, "train"), SliceDataset(data, "test")
    # Errors are reported before hours of work.
    others = [open_encoder(text) for text in encoder or ()]
    bundle, folder = None, Path(synthetic)
    if not folder.is_dir() or (folder / "bundle.json").is_file():
        bundle = open_bundle(synthetic)
        if bundle.structures:
            check_structures(bundle.structures, training, bundle.name)
    _check_task(utility, training, held_out, bundle)
    kept.mkdir(parents=True, exist_ok=True)
    if bundle is not None:
        mixture = mixture_like(training, bundle.sampling, bundle.labels)
        folder = _made(bundle, mixture, kept, count, device)
    judged = open_synthetic(folder)
    if utility == "segmentation":
        check_segmentation(judged, training, held_out)
    with _reporting() as advance:
        simclr = trained_simclr(
            training,
            kept / "simclr.safetensors",
            _training(steps),
            progress=lambda done, total, _: advance("training the encoder", done, total),
        )
        encoders: list[Encoder] = [open_encoder("descriptor"), simclr, *others]
        found = judge(judged, data, encoders, kept / "features", copies=True, progress=advance)
        if utility is not None:
            found = replace(found, utility=_utility(judged, data, utility, advance))
    if bundle is not None:
        generator = Generator(OnnxBackend(bundle, device=device))
        found = replace(
            found,
            name=bundle.name,
            seconds_an_image=_seconds(generator, mixture),
            parameters=parameters_of(bundle),
            membership=_membership(generator, training, held_out),
            reconstruction=measure_reconstruction(generator, held_out, bundle.sampling),
            stacks=measure_stacks(generator, bundle, SliceDataset(data)),
        )
    values, report = to_dict(found), out.with_suffix(".json")
    text = to_card(values)
    write_files(
        {
            out: page(found, judged, training).encode(),
            report: json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False).encode(),
            out.with_suffix(".md"): text.encode(),
        }
    )
    print_message(text)
    if bundle is not None:
        print_message(f"to add it to the model card: medvar evaluate card {synthetic} {report}")
    print_result(out)


@evaluate.command()
def card(
    bundle: Annotated[str, typer.Argument(help="Folder or name of the bundle that was evaluated.")],
    report: Annotated[Path, typer.Argument(help="The .json file written by `medvar evaluate images`.")],
) -> None:
    """Add an evaluation to the model card of its bundle; an earlier one is replaced.

    The sha256 of the model does not change, so earlier images can still be made again.
    """
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.evaluate.report.card_section import put_into_card

    print_result(put_into_card(open_bundle(bundle), report).path)


@evaluate.command()
def utility(
    synthetic: Annotated[Path, typer.Argument(help="A synthetic dataset, or a folder of PNG, NIfTI or DICOM files.")],
    data: Slices,
    task: Annotated[
        Task, typer.Option(help="Label to classify (region, plane or modality), or segmentation.")
    ] = "region",
    steps: Annotated[int, typer.Option(help="Steps of training each network.", min=1)] = 300,
    seeds: Annotated[
        int, typer.Option(help="How many times each network is trained, with different seeds.", min=1)
    ] = 3,
    patients: Annotated[
        list[int] | None,
        typer.Option(
            help="Number of training patients (of each class); repeat for more points of the learning curve. "
            "Default: 1, 2, 4 … All are always used, too.",
            min=1,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write the metrics to; a page is written beside it as .html.")
    ] = None,
) -> None:
    """Train small networks on real images, on synthetic ones, and on both; test them on held-out patients."""
    try:
        from medvar_engine.data.shards import Manifest
        from medvar_engine.evaluate.images.synthetic_images import open_synthetic
        from medvar_engine.evaluate.report.utility_section import utility_page
    except ImportError as error:
        raise needs("train,cpu", error) from error
    from dataclasses import asdict

    from medvar_engine import __version__
    from medvar_engine.storage import write_files

    judged = open_synthetic(synthetic)
    with _reporting() as advance:
        found = _utility(judged, data, task, advance, steps=steps, seeds=seeds, patients=patients or ())
    if out is not None:
        about = {"version": __version__, "name": judged.name, "models": judged.models}
        values = about | {"data": Manifest.read(data).digest} | asdict(found)
        content = json.dumps(values, indent=1, ensure_ascii=False).encode()
        report = out.with_suffix(".json") if out.suffix == ".html" else out
        write_files({report: content, out.with_suffix(".html"): utility_page(found, judged.name).encode()})
    for name, one in found.metrics.items():
        print_result(_line(name, one))
    for point in found.curve:
        for name, one in point.metrics.items():
            print_result(_line(f"{name}, {point.patients} patient{'s' * (point.patients > 1)}", one))


def _line(name: str, one: MetricValue) -> str:
    value = "-" if one.value is None else f"{one.value:.3f}"
    return f"{name:<20} {value}" + ("" if one.low is None else f"  {one.low:.3f} to {one.high:.3f}")


def _utility(
    synthetic: Synthetic,
    data: Path,
    task: Task,
    report_progress: Callable[[str, int, int], None],
    **how: Any,
) -> Utility | SegmentationUtility:
    """Measure the utility for a classifier or a segmenter; with numbers of patients as a learning curve."""
    if task == "segmentation":
        from medvar_engine.evaluate.pairs import segmentation_utility

        _needs_monai()
        return segmentation_utility.measure_segmentation(synthetic, data, progress=report_progress, **how)
    from medvar_engine.evaluate import utility

    return utility.measure_utility(synthetic, data, task, progress=report_progress, **how)


@evaluate.command()
def compare(
    reports: Annotated[list[Path], typer.Argument(help="The .json files of evaluations on the same slices.")],
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("compared.html"),
) -> None:
    """Compare evaluations of several models on one page: quality against size and speed."""
    from medvar_engine.errors import MedvarError
    from medvar_engine.evaluate.report.evaluation_page import compare as page
    from medvar_engine.storage import write_files

    found = []
    for path in reports:
        try:
            found.append(plain_json.read(path))
            written = page(found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MedvarError(f"{path} is not an evaluation written by `medvar evaluate images` ({error}).") from error
    if len({one.get("data") for one in found}) > 1:
        print_message("note: these evaluations are on different slices, so their metrics cannot be compared")
    write_files({out: written.encode()})
    print_result(out)


def _check_task(task: Task | None, training: SliceDataset, held_out: SliceDataset, bundle: Bundle | None) -> None:
    """Raise `MedvarError` before hours of work if the task cannot be measured."""
    from medvar_engine.errors import MedvarError
    from medvar_engine.evaluate.utility import classes_of

    if task == "segmentation" and bundle is not None and not bundle.structures:
        raise MedvarError(f"{bundle.name} makes images without masks, so there is nothing to learn to segment.")
    if task not in (None, "segmentation"):
        classes_of(task, training, held_out)
    if training.structures and (bundle is None or bundle.structures):
        _needs_monai()


def _needs_monai() -> None:
    """Raise `MedvarError` when the library that segments is missing."""
    try:
        import monai  # noqa: F401
    except ImportError as error:
        raise needs("train,cpu", error) from error


def _made(bundle: Bundle, mixture: Mixture, cache: Path, count: int, device: str) -> Path:
    """A synthetic dataset of the bundle, which is made unless it exists."""
    from medvar_engine.sets.make_set import Resources, make_set

    asked = sha256_of(f"{bundle.bundle_id} {mixture.to_dict()} {count}")
    folder = cache / f"set-{asked[:12]}"
    with progress() as bar:
        task = bar.add_task("making images", total=count)
        # Nothing is withheld, because all images of the model are evaluated.
        make_set(
            folder,
            mixture,
            count,
            bundle,
            computing=Resources(device),
            copy_policy="off",
            progress=lambda there, _: bar.update(task, completed=there),
        )
    return folder


def _seconds(generator: Generator, mixture: Mixture) -> float:
    """Seconds to make one image alone."""
    taken = []
    for request in mixture.requests(range(6)):
        begin = time.perf_counter()
        generator.image(generator.finish(generator.start([request])))
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[1:])  # the first one warms up


def parameters_of(bundle: Bundle) -> int | None:
    """The number of parameters from the manifest; None for older bundles."""
    from medvar_engine.bundle.read import MANIFEST

    found = json.loads((bundle.path / MANIFEST).read_text(encoding="utf-8"))["model"].get("parameters")
    return found if isinstance(found, int) else None


def _membership(generator: Generator, training: SliceDataset, held_out: SliceDataset) -> MembershipInference:
    from medvar_engine.evaluate.membership import membership_inference
    from medvar_engine.evaluate.slice_likelihood import negative_log_likelihood

    print_message("computing the likelihood of training slices and of held-out slices …")
    sides = (negative_log_likelihood(generator, side, 128) for side in (training, held_out))
    (members, member_patients), (others, of_others) = sides
    return membership_inference(members, others, member_patients=member_patients, other_patients=of_others)


def _training(steps: int | None) -> SimCLRTraining:
    from medvar_engine.encoders.simclr_training import SimCLRTraining

    return SimCLRTraining() if steps is None else SimCLRTraining(steps=steps)


@contextmanager
def _reporting() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each counted task."""
    with progress() as bar:
        tasks: dict[str, object] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield advance
