"""A real image as a picture: encoded, shown over the original, varied, and looked through for what is unexpected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.layers.image_layers import METADATA
from napari_medvar.layers.real_image import real_image
from napari_medvar.panels.real_image_panel import RealImagePanel
from napari_medvar.scan_reader import Scans, read_scans
from napari_medvar.session.generation_session import Preview

if TYPE_CHECKING:
    from napari.layers import Layer

_TOLD = 5  # refusals; the others are alike


class Laid:
    """A real image has become a picture of the history, which is to be seen above the image."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far the reconstruction is from the image, in per cent of its contrast range on average."""

    percent: float


class RealImageController:
    """Wires the real image panel."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.panel = RealImagePanel()
        self.panel.encode.connect(self.encode)
        self.panel.open_scan.connect(self.open_scan)
        layers = workspace.viewer.layers
        self._events = (layers.events.inserted, layers.events.removed, layers.selection.events.active)
        for event in self._events:
            event.connect(self._offer_images)  # napari holds these weakly
        self._offer_images()

    def open_scan(self, path: Path) -> None:
        """A scan of the user's, from a file or a folder, as layers."""
        self._workspace.start("compute", lambda stop: [read_scans(path)], f"Opening {path.name}…")

    def encode(self) -> None:
        """The slice of the chosen image becomes the current picture."""
        self._encode(self._layer())

    def encode_active(self) -> None:
        """The slice of the layer selected in the layer list becomes the current picture."""
        self._encode(self._workspace.viewer.layers.selection.active)

    def _encode(self, layer: Layer | None) -> None:
        session, model = self._workspace.session, self._workspace.session.model
        if model is None:
            return
        viewer, bundle = self._workspace.viewer, model.bundle
        try:
            image = real_image(viewer, layer, bundle.image_size, str(bundle.path))
        except MedvarError as error:
            self._workspace.tell(str(error))
            return
        condition = self._workspace.request().condition

        def encode() -> Iterator[object]:
            pictures = session.start_from_image(image.pixels, condition, name=image.name, image_space=image.image_space)
            for i, made in enumerate(pictures):
                if i == 0:
                    yield Laid()
                yield made
                if isinstance(made, Preview) and made.newest:
                    yield Fidelity(float(np.abs(made.pixels - image.pixels).mean() * 50))

        self._workspace.start("make", lambda stop: encode())

    def offer(self, bundle: Bundle) -> None:
        """Another model."""

    def take(self, result: object) -> None:
        """A result of the worker."""
        if isinstance(result, Laid):
            self._workspace.picture.layers.bring_to_front()
        elif isinstance(result, Scans):
            self._show(result)
        elif isinstance(result, Fidelity):
            self.panel.report(
                f"Reconstructed: {result.percent:.1f} % of the contrast range from the original on average."
            )

    def refresh(self, state: State) -> None:
        """Enable what can be done now."""
        self._offer_images()
        self.panel.allow(idle=state.idle, complete=state.complete)

    def leave_viewer(self) -> None:
        """Let go of the viewer; the panel may be gone already."""
        for event in self._events:
            event.disconnect(self._offer_images)

    # -- how ----------------------------------------------------------------------------------------------------

    def _show(self, scans: Scans) -> None:
        """Scans that were read, the last of them selected and in view, at its middle slice."""
        viewer = self._workspace.viewer
        for array, attributes, _ in scans.layers:
            layer = viewer.add_image(array, **attributes)
        viewer.layers.selection.active = layer
        middle = layer.data_to_world((np.array(layer.data.shape) - 1) / 2)
        ahead = viewer.dims.ndim - layer.ndim
        viewer.dims.set_point([ahead + axis for axis in range(layer.ndim)], list(middle))
        viewer.reset_view(layers=[layer] if not ahead else None)
        if scans.refused:
            self._workspace.tell("\n".join(scans.refused[:_TOLD]))

    def _layer(self) -> Layer | None:
        """The chosen one; without an image, what is selected, to say why that cannot be encoded."""
        self._offer_images()
        layers, name = self._workspace.viewer.layers, self.panel.image
        return layers[name] if name is not None and name in layers else layers.selection.active

    def _offer_images(self, event: object = None) -> None:
        from napari.layers import Image

        layers = self._workspace.viewer.layers
        names = [layer.name for layer in layers if isinstance(layer, Image) and METADATA not in layer.metadata]
        active = layers.selection.active
        self.panel.offer_images(names, None if active is None else active.name)
