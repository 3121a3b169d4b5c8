"""``medvar gate``: adds a training index to a bundle, to recognise copies of training slices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import needs, print_message, print_result, progress

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle
    from medvar_engine.data.dataset import SliceDataset

_ENOUGH = 0.95  # share of found planted copies below which a passed check means little


def gate(
    bundle: Annotated[str, typer.Argument(help="Folder or name of the bundle.")],
    data: Annotated[Path, typer.Option(help="Prepared slices that it was trained on, with held-out patients.")],
) -> None:
    """Add a training index to a bundle, so that copies of training slices can be withheld or flagged.

    The index contains a description of each training slice, and the distance below which an image counts as a copy. It
    contains no images and no names. The sha256 of the model does not change. This takes some minutes.
    """
    try:
        from medvar_engine.data.dataset import SliceDataset
        from medvar_engine.encoders.image_source import PreparedImages
        from medvar_engine.evaluate.copies import calibrate, find_planted_copies
    except ImportError as error:
        raise needs("train,cpu", error) from error
    from medvar_engine.bundle.add_files import add_to_bundle
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.memorisation.training_index import pack_index

    model = open_bundle(bundle)
    training, held_out = SliceDataset(data, split="train"), SliceDataset(data, split="test")
    _check_fit(model, training)
    names = ([row.patient for row in slices.rows] for slices in (training, held_out))
    images, others = PreparedImages(training), PreparedImages(held_out)
    with progress() as bar:
        task = bar.add_task("describing training slices and those of held-out patients", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        calibration = calibrate(images, next(names), others, next(names), advance)
        bar.update(task, description="planting copies", completed=0, total=None)
        found = find_planted_copies(calibration.gate, images)
    print_message("copies found: " + ", ".join(f"{kind} {share.value:.1%}" for kind, share in found.items()))
    shares = list(calibration.false_alarms.values())
    print_message(
        f"false alarms for a patient who did not influence the threshold: {sum(shares) / len(shares):.1%} on average"
    )
    if poor := [kind for kind, share in found.items() if share.value < _ENOUGH]:
        print_message(f"note: fewer than {_ENOUGH:.0%} of these copies are found: {', '.join(poor)}")
    files = pack_index(calibration.gate)
    print_message(f"{sum(map(len, files.values())) / 2**20:.1f} MB for {len(training)} slices")
    print_result(add_to_bundle(model.path, files).path)


def _check_fit(model: Bundle, training: SliceDataset) -> None:
    """Check that the slices can be those that the model was trained on."""
    from medvar_engine.errors import MedvarError

    if training.size != model.image_size:
        raise MedvarError(
            f"{training.folder} holds slices of {training.size} pixels per side, but {model.name} makes "
            f"{model.image_size}; give the slices that it was trained on."
        )
    trained = sum(slice_type.slices for slice_type in model.slice_types)
    if model.slice_types and trained != len(training):
        print_message(
            f"note: {model.name} was trained on {trained} slices, but {training.folder} has "
            f"{len(training)} to train on. Copies of missing slices will not be recognised."
        )
