"""napari's writer of synthetic images: PNG, NIfTI, DICOM and session files, each with the trace that reproduces it.

The image is decoded again from the layer's trace. The data of the layer, which may have been changed, are not written.
The mask of a model that makes masks is written beside the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.storage import slug
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import files_of, format_of, write_image
from medvar_engine.write.output_image import OutputImage
from napari_medvar.layers.image_layers import METADATA
from napari_medvar.layers.layer_data import LayerData
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.opened_bundle import OpenedBundle, open_bundle_of
from napari_medvar.session.session_file import SUFFIX, SavedSession, write_session
from napari_medvar.session.trace_tree import Node
from napari_medvar.settings import read_settings


@dataclass(frozen=True, eq=False, slots=True)
class _Ours:
    """The metadata of one layer made by MedVAR."""

    name: str
    trace: Trace
    bundle: str
    whole: Trace  # the trace of the whole image; ``trace`` is its beginning when the layer shows a coarser scale
    image_space: ImageSpace | None = None  # given when the image came from a real image


def write_layers(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Write layers to ``path`` in the format of its ending. Returns the paths of the files.

    For several images, the layers' names are appended to the file name, and existing files are not replaced. Raises
    `MedvarError`, which napari shows, when a layer was not made by MedVAR; then nothing is written.
    """
    target = Path(path)
    ours = [_ours(attributes) for _, attributes, _ in layers]
    opened = _opened(ours)
    if target.name.lower().endswith(SUFFIX):
        return [str(_write_session(target, ours, opened))]
    if (found := format_of(target)) is None:
        raise MedvarError(f"{target} must end in .png, .nii, .nii.gz, .dcm or {SUFFIX}.")
    name, ending = found
    paths = [target]
    if len(ours) > 1:
        stem = target.name[: -len(ending)]
        paths = [target.with_name(f"{stem}-{slug(layer.name).strip('_') or 'layer'}{ending}") for layer in ours]
        _check_free([file for each in paths for file in files_of(each, name)])
    study = Study(target.name)
    images = [_output_image(opened, layer) for layer in ours]
    images = _screened(opened, ours, images)
    written = [
        file
        for number, (each, image) in enumerate(zip(paths, images, strict=True), start=1)
        for file in write_image(each, name, image, study, number)
    ]
    return list(map(str, written))


def _ours(attributes: Mapping[str, Any]) -> _Ours:
    name, about = attributes.get("name", "A layer"), attributes.get("metadata", {}).get(METADATA, {})
    if "trace" not in about:
        raise MedvarError(
            f"“{name}” was not made by MedVAR, so it cannot be saved as a synthetic image. Choose another file type, "
            "or select only layers that MedVAR made."
        )
    if about["trace"] is None:
        raise MedvarError(f"“{name}” shows no image yet. Generate that scale first, or do not select the layer.")
    whole, depth = Trace.from_json(about["trace"]), int(about["scale"]) + 1
    part = replace(whole, pyramid=whole.pyramid.prefix(depth), entropy=whole.entropy[:depth])
    bundle = str(about.get("bundle", ""))
    image_space = ImageSpace.from_dict(about["scene"], bundle) if "scene" in about else None
    return _Ours(name, whole if depth == whole.pyramid.depth else part, bundle, whole, image_space)


def _opened(ours: Sequence[_Ours]) -> OpenedBundle:
    if len({layer.trace.bundle_id for layer in ours}) > 1:
        raise MedvarError("These layers were made by different models. Save the layers of each model separately.")
    settings = read_settings()
    hints = [layer.bundle for layer in ours]
    return open_bundle_of(ours[0].trace.bundle_id, hints, settings.device, settings.connection)


def _output_image(opened: OpenedBundle, ours: _Ours) -> OutputImage:
    generation = opened.generator.restore([ours.trace])
    image_space = ours.image_space or ImageSpace.of(opened.bundle, ours.trace.request.condition)
    if not (structures := opened.generator.backend.info.structures):
        return image_space.output_image(ours.trace, opened.generator.image_so_far(generation)[0])
    images, masks = opened.generator.pairs(generation)
    return image_space.output_image(ours.trace, images[0], masks[0], structures)


def _screened(opened: OpenedBundle, ours: Sequence[_Ours], images: Sequence[OutputImage]) -> list[OutputImage]:
    """The images with their copy risk. Raises `MedvarError` when one of them may be a copy of a training slice."""
    found = screen([image.pixels for image in images], CopyScreen.of(opened.bundle))
    for i in found.withheld:
        raise MedvarError(
            f"Nothing was written, because “{ours[i].name}” lies {found.risks[i]}. To write it with a flag, save it "
            "in the MedVAR panel with “Copies” set to “Flag”."
        )
    return [replace(image, copy_risk=risk) for image, risk in zip(images, found.risks, strict=True)]


def _write_session(path: Path, ours: Sequence[_Ours], opened: OpenedBundle) -> Path:
    """Write the images of the layers to a session file, each once, however many of its scales are among the layers."""
    wholes = {layer.whole.to_json(): layer for layer in ours}.values()
    nodes = tuple(
        Node(i, layer.whole, name=layer.name, image_space=layer.image_space) for i, layer in enumerate(wholes)
    )
    bundle = opened.bundle
    return write_session(path, SavedSession(opened.id, bundle.name, str(bundle.path.absolute()), nodes, nodes[-1].id))


def _check_free(paths: Sequence[Path]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise MedvarError(f"Two layers would both be written to {path.name}. Give them different names.")
        if path.exists():
            raise MedvarError(f"{path} exists already. Choose another name or folder.")
