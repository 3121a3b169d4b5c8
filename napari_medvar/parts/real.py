"""A real image as a picture: encoded, shown over the original, varied, and looked through for what is unexpected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medvar_engine.bundle import Bundle
from medvar_engine.errors import MedvarError
from napari_medvar.panels.real import RealImagePanel
from napari_medvar.parts.desk import Desk, State
from napari_medvar.real_image import real_image
from napari_medvar.session import Preview


class Laid:
    """A real image has become a picture of the history, which is to be seen above the image."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far the reconstruction is from the image, in per cent of its contrast range on average."""

    percent: float


class RealImagePart:
    """Wires the real image panel."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.panel = RealImagePanel()
        self.panel.encode.connect(self.encode)

    def encode(self) -> None:
        """The slice of the active layer becomes the current picture."""
        session, model = self._desk.session, self._desk.session.model
        if model is None:
            return
        viewer, bundle = self._desk.viewer, model.bundle
        try:
            image = real_image(viewer, viewer.layers.selection.active, bundle.image_size, str(bundle.path))
        except MedvarError as error:
            self._desk.tell(str(error))
            return
        condition = self._desk.request().condition

        def encode() -> Iterator[object]:
            pictures = session.start_from_image(image.pixels, condition, name=image.name, scene=image.scene)
            for i, made in enumerate(pictures):
                if i == 0:
                    yield Laid()
                yield made
                if isinstance(made, Preview) and made.newest:
                    yield Fidelity(float(np.abs(made.pixels - image.pixels).mean() * 50))

        self._desk.start("make", lambda stop: encode())

    def offer(self, bundle: Bundle) -> None:
        """Another model."""

    def take(self, result: object) -> None:
        """A result of the worker."""
        if isinstance(result, Laid):
            self._desk.picture.layers.bring_to_front()
        elif isinstance(result, Fidelity):
            self.panel.report(
                f"Reconstructed: {result.percent:.1f} % of the contrast range from the original on average."
            )

    def refresh(self, state: State) -> None:
        """Enable what can be done now."""
        self.panel.allow(idle=state.idle, complete=state.complete)
