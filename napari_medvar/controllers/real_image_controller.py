"""`RealImageController`: opens scans, encodes real images, and shows them over the original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.layers.compare_layers import difference
from napari_medvar.layers.image_layers import METADATA
from napari_medvar.layers.real_image import real_image
from napari_medvar.layers.scan_layers import Scans, read_scans, shortened
from napari_medvar.panels.real_image_panel import RealImagePanel
from napari_medvar.session.generation_session import Preview

if TYPE_CHECKING:
    from napari.layers import Layer


class ImageEncoded:
    """A real image was encoded and added to the history; it is shown above the original."""


@dataclass(frozen=True, slots=True)
class ReconstructionError:
    """The mean absolute difference between reconstruction and image, in per cent of its contrast range."""

    name: str  # of the layer
    percent: float


class RealImageController:
    """Connects the real-image panel to the session."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.panel = RealImagePanel()
        self.panel.encode.connect(self.encode)
        self.panel.open_scan.connect(self.open_scan)
        layers = workspace.viewer.layers
        self._events = (
            *(layers.events.inserted, layers.events.removed, layers.events.renamed),
            layers.selection.events.active,
        )
        for event in self._events:
            event.connect(self._offer_images)  # napari keeps only weak references
        self._offer_images()

    def open_scan(self, path: Path) -> None:
        """Open a scan of the user's, a file or a folder, as layers."""
        self._workspace.start("compute", lambda stop: [read_scans(path)], f"Opening {path.name}…")

    def encode(self) -> None:
        """Encode the visible slice of the chosen layer as the current image."""
        self._encode(self._layer())

    def encode_active(self) -> None:
        """Encode the visible slice of the layer selected in the layer list as the current image."""
        self._encode(self._workspace.viewer.layers.selection.active)

    def _encode(self, layer: Layer | None) -> None:
        session, opened = self._workspace.session, self._workspace.session.opened
        if opened is None:
            return
        viewer, bundle = self._workspace.viewer, opened.bundle
        try:
            image = real_image(viewer, layer, bundle.image_size, str(bundle.path))
        except MedvarError as error:
            self._workspace.show_error(str(error))
            return
        condition = self._workspace.request().condition

        def encode() -> Iterator[object]:
            images = session.start_from_image(image.pixels, condition, name=image.name, image_space=image.image_space)
            for i, made in enumerate(images):
                if i == 0:
                    yield ImageEncoded()
                yield made
                if isinstance(made, Preview) and made.newest:
                    yield ReconstructionError(image.name, difference((made.pixels, image.pixels)))

        self._workspace.start("make", lambda stop: encode())

    def offer(self, bundle: Bundle) -> None:
        """Adapt the panel to another model."""

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, ImageEncoded):
            self._workspace.image_view.layers.bring_to_front()
        elif isinstance(result, Scans):
            self._show(result)
        elif isinstance(result, ReconstructionError):
            self.panel.report(
                f"“{result.name}” was reconstructed, with a mean error of {result.percent:.1f} % of the contrast range."
            )

    def refresh(self, state: State) -> None:
        """Update which controls are enabled."""
        self._offer_images()
        self.panel.allow(idle=state.idle, complete=state.complete)

    def leave_viewer(self) -> None:
        """Disconnect from the viewer; the panel may be deleted already."""
        for event in self._events:
            event.disconnect(self._offer_images)

    # -- internals --------------------------------------------------------------------------------------------------

    def _show(self, scans: Scans) -> None:
        """Add the scans as layers, select the last one, and show its middle slice in the plane it was acquired in."""
        viewer = self._workspace.viewer
        for array, attributes, _ in scans.layers:
            layer = viewer.add_image(array, **attributes)
        viewer.layers.selection.active = layer
        ahead = viewer.dims.ndim - layer.ndim
        if not ahead:
            viewer.dims.order = _acquired_plane(layer)
        middle = layer.data_to_world((np.array(layer.data.shape) - 1) / 2)
        viewer.dims.set_point([ahead + axis for axis in range(layer.ndim)], list(middle))
        viewer.reset_view(layers=[layer] if not ahead else None)
        if scans.refused:
            self._workspace.show_error(shortened(scans.refused))

    def _layer(self) -> Layer | None:
        """The chosen layer; without an image layer, the selected layer, to say why it cannot be encoded."""
        self._offer_images()
        chosen = self.panel.image
        return self._workspace.viewer.layers.selection.active if chosen is None else chosen

    def _offer_images(self, event: object = None) -> None:
        from napari.layers import Image

        layers = self._workspace.viewer.layers
        images = [layer for layer in layers if isinstance(layer, Image) and METADATA not in layer.metadata]
        self.panel.offer_images(images, layers.selection.active)


def _acquired_plane(layer: Layer) -> tuple[int, ...]:
    """The order of the viewer's axes in which the slider goes through the acquired slices of a scan.

    Their distance is the largest side of a voxel. The head, or the front in axial slices, is up.
    """
    through = int(np.argmax(np.round(layer.scale, 3)))  # the first, so axial, for cubes
    return through, *(axis for axis in range(layer.ndim) if axis != through)
