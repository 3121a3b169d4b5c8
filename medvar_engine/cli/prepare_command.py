"""``medvar prepare``: turns scans into prepared slices."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medvar_engine.cli.console import needs, print_message, print_result, progress
from medvar_engine.errors import MedvarError

if TYPE_CHECKING:
    from medvar_engine.data.harmonise.intensity import Window
    from medvar_engine.data.harmonise.slice_recipe import Recipe
    from medvar_engine.data.identity.pseudonyms import Pseudonyms
    from medvar_engine.data.read.refusal import Refusal
    from medvar_engine.data.shards import Manifest

_SHOWN = 20  # largest number of refusals and of remarks that are printed
_WIDTH = 30  # letters of a name in the progress bar


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of DICOM, NIfTI, NRRD or MHA files or archives, 2-D images with an index.csv, or one file."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must be new or empty.")],
    recipe: Annotated[str | None, typer.Option(help="Recipe of the dataset, by name or as a .yaml file.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels per side; 128 by default.", min=32, max=1024)] = None,
    spacing: Annotated[
        float | None, typer.Option(help="Pixel size in mm; by default the slice is fitted to the matrix.")
    ] = None,
    plane: Annotated[
        list[str] | None, typer.Option(help="axial, coronal, sagittal or short-axis; all by default.")
    ] = None,
    window: Annotated[str | None, typer.Option(help="CT window for all regions: a name, or low:high in HU.")] = None,
    phase_step: Annotated[int | None, typer.Option(help="For scans over time: use every n-th phase.", min=1)] = None,
    diffusion: Annotated[str | None, typer.Option(help="Volumes of diffusion scans: b0 (default) or all.")] = None,
    faces: Annotated[
        str | None, typer.Option(help="What to do with heads that show a face: keep, crop or skip.")
    ] = None,
    modality: Annotated[str | None, typer.Option(help="CT or MR, if the files do not state it.")] = None,
    region: Annotated[str | None, typer.Option(help="Body region, e.g. brain, if the files do not state it.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset, a label for the condition.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the scans, if index.csv does not state it.")] = None,
    patient_ids: Annotated[
        Literal["pseudonym", "public"], typer.Option(help="Write pseudonyms of patients and series, or their names.")
    ] = "pseudonym",
    key: Annotated[
        Path | None,
        typer.Option(help="File with the secret key of the pseudonyms; by default the one in your settings."),
    ] = None,
    holdout: Annotated[list[str] | None, typer.Option(help="Patient to hold out for testing; repeat for more.")] = None,
    test_fraction: Annotated[
        float, typer.Option(help="Share of patients to hold out for testing.", min=0, max=0.9)
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    include_synthetic: Annotated[
        bool, typer.Option("--include-synthetic", help="Accept synthetic images, too.")
    ] = False,
    assume_orientation: Annotated[
        str | None, typer.Option(help="Directions of the voxel axes, e.g. LPS, for files that do not state them.")
    ] = None,
    assume_spacing: Annotated[
        float | None, typer.Option(help="Voxel size in mm, for files that do not state it.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Label maps beside the scans: totalsegmentator, msd, nnunet, dicom-seg, or a .yaml file."),
    ] = None,
    refused: Annotated[Path | None, typer.Option(help="CSV file to write: refused files by their real names.")] = None,
    append: Annotated[bool, typer.Option("--append", help="Add to existing slices.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing slices.")] = False,
    workers: Annotated[int, typer.Option(help="Number of parallel processes.", min=1)] = 1,
    cluster: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://host:8786.")] = None,
) -> None:
    """Turn scans into harmonised slices in memory-mapped shards, split by patient.

    After an interruption, the same command continues where it stopped.
    """
    try:
        from medvar_engine.data.harmonise.slice_recipe import Recipe
        from medvar_engine.data.masks.mask_rule import mask_rule
        from medvar_engine.data.prepare import prepare as run
        from medvar_engine.data.read.assumed_geometry import Assumed
        from medvar_engine.data.recipe.recipe_file import load_recipe
        from medvar_engine.data.shards import Manifest
        from medvar_engine.data.split import SplitRule
        from medvar_engine.data.survey import ScanRules
    except ImportError as error:
        raise needs("train", error) from error
    if append and overwrite:
        raise MedvarError("--append and --overwrite exclude each other; choose one of them.")
    dataset_recipe = load_recipe(recipe) if recipe else None
    asked: dict[str, Any] = {
        "size": size,
        "spacing_mm": spacing,
        "planes": tuple(plane) if plane else None,
        "window": _window(window) if window else None,
        "phase_step": phase_step,
        "faces": faces,
        "diffusion": diffusion,
    }
    how = dataset_recipe.recipe(**asked) if dataset_recipe else Recipe.of(**asked)
    names_are_public = patient_ids == "public" or (dataset_recipe and dataset_recipe.patient_ids == "public")
    if append:
        _check_same_recipe(Manifest.read(out), how, out)
        _check_same_ids(Manifest.read(out), bool(names_are_public), key, out)
    if refused is not None:
        _check_list(refused, out)
    refusals: list[Refusal] = []
    # New slices are written to a separate folder until they are complete.
    target = out.absolute().with_name(f".{out.name}.more") if append else out
    with progress() as bar:
        task = bar.add_task("looking for scans", total=None)

        def advance(what: str, done: int, total: int, slices: int) -> None:
            speed = bar.tasks[task].speed
            rate = f", {speed:.2g} scans/s" if speed else ""
            bar.update(task, description=f"{slices} slices{rate}  {what[-_WIDTH:]}", completed=done, total=total)

        try:
            manifest = run(
                source,
                target,
                how,
                ScanRules(
                    dataset_recipe=dataset_recipe,
                    modality=modality,
                    region=region,
                    dataset=dataset,
                    licence=licence,
                    pseudonyms=None if names_are_public else _pseudonyms(key, out),
                    include_synthetic=include_synthetic,
                    assumed=Assumed(assume_orientation and assume_orientation.upper(), assume_spacing),
                    masks=mask_rule(masks) if masks else None,
                ),
                split=SplitRule(test_fraction, seed, tuple(holdout or ())),
                overwrite=overwrite or append,
                on_refusal=refusals.append,
                workers=workers,
                cluster=cluster,
                progress=advance,
            )
        except KeyboardInterrupt:
            print_message(f"{out} is not complete. Run the same command again to continue.")
            raise
        except MedvarError:
            if refused is not None and refusals:  # all were refused
                _write_refusals(refused, refusals)
            raise
    _report(manifest, refusals)
    if refused is not None:
        _write_refusals(refused, refusals)
    if append:
        _add(out, target, key)
    print_result(out)


def _add(out: Path, more: Path, key: Path | None) -> None:
    """Append the folder ``more`` and remove it. It is kept only if it can still be appended later."""
    from medvar_engine.data.identity.pseudonyms import known_pseudonyms
    from medvar_engine.data.shards import append

    pseudonyms = known_pseudonyms(key)
    if why := _never(out, more, pseudonyms):
        shutil.rmtree(more)
        raise MedvarError(f"Nothing was added to {out}, and the new slices are removed. {why}")
    try:
        append(out, more, pseudonyms=pseudonyms)
    except MedvarError as error:
        raise MedvarError(f"{error} The new slices are kept: medvar data append {out} {more} adds it.") from error
    shutil.rmtree(more)


def _never(out: Path, more: Path, pseudonyms: Pseudonyms | None) -> str | None:
    """The reason why ``more`` can never be appended; None if it can."""
    from medvar_engine.data.shards import ShardFolder
    from medvar_engine.data.shards.join import check_fit

    parts = [ShardFolder.open(out), ShardFolder.open(more)]
    try:
        check_fit(parts, any_recipe=False, pseudonyms=pseudonyms)
    except MedvarError as error:
        return str(error)
    return None


def _window(text: str) -> Window:
    """A name, or ``low:high``."""
    low, colon, high = text.partition(":")
    if not colon:
        return text
    try:
        return float(low), float(high)
    except ValueError as error:
        raise MedvarError(f"--window is a name, or low:high in HU such as -160:240, but got {text!r}.") from error


def _check_same_recipe(there: Manifest, recipe: Recipe, out: Path) -> None:
    """Raise `MedvarError` before hours of work if the result could not be added."""
    wanted = recipe.to_dict()
    if differing := sorted(name for name in wanted if there.recipe.get(name) != wanted[name]):
        raise MedvarError(
            f"{out} was prepared with other settings ({', '.join(differing)} differ), so nothing can be added. "
            "Give the same settings, or choose another folder."
        )


def _check_same_ids(there: Manifest, public: bool, key: Path | None, out: Path) -> None:
    """Raise `MedvarError` before hours of work if patient ids could not be compared."""
    from medvar_engine.data.identity.pseudonyms import known_pseudonyms
    from medvar_engine.data.shards.patients import PUBLIC, check_ids, patient_ids

    pseudonyms = known_pseudonyms(key)
    ours = PUBLIC if public else "a new key" if pseudonyms is None else pseudonyms.key_id
    check_ids(patient_ids(there), [ours], f"{out} and what is added to it", pseudonyms)


def _pseudonyms(key: Path | None, out: Path) -> Pseudonyms:
    from medvar_engine.data.identity.pseudonyms import Pseudonyms, default_key_path, load_or_make_key

    path = key or default_key_path()
    is_new = not path.exists()
    pseudonyms = Pseudonyms(load_or_make_key(path, outside=out))
    if is_new:
        print_message(
            f"A new key for pseudonyms is stored in {path}. Without it, pseudonyms cannot be assigned to patients."
        )
    return pseudonyms


def _check_list(refused: Path, out: Path) -> None:
    """Raise `MedvarError` before hours of work if the list of refused files could not be written."""
    if refused.resolve().is_relative_to(out.resolve()):
        raise MedvarError(f"The list {refused} has real names, so it must not lie in {out}; choose another place.")
    if refused.is_dir() or not refused.absolute().parent.is_dir() or not os.access(refused.absolute().parent, os.W_OK):
        raise MedvarError(f"The list {refused} cannot be written: name a file in a folder that you may write to.")


def _write_refusals(path: Path, refusals: Sequence[Refusal]) -> None:
    from medvar_engine.storage import write_files

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "reason"))
    writer.writerows((one.path, one.reason) for one in refusals)
    write_files({path: text.getvalue().encode()})


def _report(manifest: Manifest, refusals: Sequence[Refusal]) -> None:
    from medvar_engine.page.elements import counted

    _print_some([f"refused {one}" for one in refusals], "--refused FILE.csv lists them all")
    _print_some([f"note: {remark}" for remark in manifest.remarks], "manifest.json has them all")
    for row in manifest.counts:
        slice_type = " ".join(str(row[name]) for name in ("modality", "region", "plane") if row[name])
        many = f"{counted(row['slices'], 'slice')} of {counted(row['patients'], 'patient')}"
        print_message(f"{row['split']:>5}  {slice_type}: {many}")
    if manifest.structures:
        print_message(f"masks: {', '.join(one['name'] for one in manifest.structures)}")


def _print_some(lines: Sequence[str], where: str) -> None:
    for line in lines[:_SHOWN]:
        print_message(line)
    if len(lines) > _SHOWN:
        print_message(f"… and {len(lines) - _SHOWN} more; {where}")
