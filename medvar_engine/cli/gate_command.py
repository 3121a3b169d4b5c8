"""``medvar gate``: a bundle learns to know copies of what it was trained on."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import needs, progress, say, tell

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle
    from medvar_engine.data.dataset import SliceDataset
    from medvar_engine.encoders.simclr import SimCLREncoder

_ENOUGH = 0.95  # share of planted copies below which passing the gate says little


def gate(
    bundle: Annotated[str, typer.Argument(help="Folder or name of the bundle.")],
    data: Annotated[Path, typer.Option(help="Prepared slices that it was trained on, with held-out patients.")],
    work: Annotated[
        Path | None, typer.Option(help="Folder to store encoder and features, which makes a later run faster.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of training the encoder; 600 by default.", min=1)] = None,
) -> None:
    """Add a training index to a bundle, so that copies of training slices can be withheld or flagged.

    It holds an encoder, trained here, embeddings of the training slices, and the distance below which an image is taken
    for a copy: no image and no name. The manifest changes last; the model keeps its sha256.
    """
    try:
        from medvar_engine.data.dataset import SliceDataset
        from medvar_engine.encoders.image_source import PreparedImages
        from medvar_engine.evaluate.memorisation import calibrate, find_planted_copies
        from medvar_export.encoder_graph import encoder_graph
    except ImportError as error:
        raise needs("train,cpu", error) from error
    from medvar_engine.bundle.add_files import add_to_bundle
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.encoders.onnx_encoder import OnnxEncoder
    from medvar_engine.memorisation.training_index import pack_index

    model = open_bundle(bundle)
    training, held_out = SliceDataset(data, split="train"), SliceDataset(data, split="test")
    _check_fit(model, training)
    with contextlib.ExitStack() as left:
        folder = work or Path(left.enter_context(tempfile.TemporaryDirectory(prefix="medvar-gate-")))
        folder.mkdir(parents=True, exist_ok=True)
        simclr = _encoder(training, folder / "simclr.safetensors", steps)
        graph = encoder_graph(simclr)
        encoder = OnnxEncoder(graph, simclr.preprocessing, name=simclr.name)
        tell("embedding training slices and held-out slices …")
        names = ([row.patient for row in slices.rows] for slices in (training, held_out))
        images, others = PreparedImages(training), PreparedImages(held_out)
        calibration = calibrate(encoder, images, next(names), others, next(names), folder / "features")
        found = find_planted_copies(calibration.gate, images)
    tell("copies found: " + ", ".join(f"{kind} {share.value:.1%}" for kind, share in found.items()))
    shares = list(calibration.false_alarms.values())
    tell(f"false alarms for a patient who did not influence the threshold: {sum(shares) / len(shares):.1%} on average")
    if poor := [kind for kind in ("same", "mirrored", "shifted", "rewindowed") if found[kind].value < _ENOUGH]:
        tell(f"note: fewer than {_ENOUGH:.0%} of these copies are found: {', '.join(poor)}; try more --steps")
    files = pack_index(calibration.gate, graph)
    tell(f"{sum(map(len, files.values())) / 2**20:.1f} MB for {len(training)} slices")
    say(add_to_bundle(model.path, files).path)


def _check_fit(model: Bundle, training: SliceDataset) -> None:
    """Whether these can be the slices that the model was trained on."""
    from medvar_engine.errors import MedvarError

    if training.size != model.image_size:
        raise MedvarError(
            f"{training.folder} holds slices of {training.size} pixels a side, but {model.name} makes "
            f"{model.image_size}; give the slices that it was trained on."
        )
    trained = sum(cell.slices for cell in model.cells)
    if model.cells and trained != len(training):
        tell(
            f"note: {model.name} says that it was trained on {trained} slices, but {training.folder} has "
            f"{len(training)} to train on. Copies of slices that are not there will not be known."
        )


def _encoder(training: SliceDataset, path: Path, steps: int | None) -> SimCLREncoder:
    from medvar_engine.encoders.simclr_training import SimCLRTraining, trained_simclr

    with progress() as bar:
        task = bar.add_task("training the encoder", total=None)

        def advance(step: int, total: int, loss: float) -> None:
            bar.update(task, completed=step, total=total, description=f"training the encoder, loss {loss:.2f}")

        how = SimCLRTraining() if steps is None else SimCLRTraining(steps=steps)
        return trained_simclr(training, path, how, progress=advance)
