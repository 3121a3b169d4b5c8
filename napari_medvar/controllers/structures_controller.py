"""Masks of structures: shown with the picture that they belong to, painted on, and drawn to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.layers.masks import structures_of
from napari_medvar.layers.structure_layers import StructureLayers
from napari_medvar.session.generation_session import Preview

if TYPE_CHECKING:
    from napari.layers import Layer


class StructuresController:
    """What the menus of Labels layers do with a model that makes masks."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._layers = StructureLayers(workspace.viewer)

    def paint(self) -> None:
        """A layer to paint structures on, on the grid of the current picture or of a new one."""
        if (bundle := self._bundle()) is not None:
            self._layers.paint(bundle.structures, self._workspace.image_space.placement)

    def draw(self) -> None:
        """A new picture to the active Labels layer, as the panels ask for."""
        session, request, count = self._workspace.session, self._workspace.request(), self._workspace.sampling.count
        if (mask := self._active_mask()) is not None:
            self._workspace.start(
                "make", lambda stop: session.draw_to_mask(request, mask, count=count, should_stop=stop)
            )

    def redraw(self) -> None:
        """The current picture from the scale looked at on, with the structures of the active Labels layer."""
        session, request, scale = self._workspace.session, self._workspace.request(), self._workspace.scale
        if (mask := self._active_mask()) is not None:
            self._workspace.start("make", lambda stop: session.redraw_to_mask(scale, request, mask, should_stop=stop))

    def offer(self, bundle: Bundle) -> None:
        """Another model."""

    def take(self, result: object) -> None:
        """A result of the worker."""
        session = self._workspace.session
        if not isinstance(result, Preview) or result.mask is None or not result.newest or session.opened is None:
            return
        if result.node.id == session.tree.current:
            placement = session.image_space_of(result.node).placement
            self._layers.show(result.mask, session.opened.bundle.structures, placement)

    def refresh(self, state: State) -> None:
        """Nothing to enable."""

    def leave_viewer(self) -> None:
        """Nothing holds the viewer."""

    # -- how ----------------------------------------------------------------------------------------------------

    def _bundle(self) -> Bundle | None:
        """The loaded model, if it makes masks; else the user is told."""
        opened = self._workspace.session.opened
        if opened is None:
            return None
        if not opened.bundle.structures:
            self._workspace.tell(
                f"The model {opened.bundle.name} makes images without masks. Open a bundle that makes masks to draw to "
                "labels."
            )
            return None
        return opened.bundle

    def _active_mask(self) -> MaskArray | None:
        """The structures ``(H, W)`` of the active layer; the user is told why when there are none."""
        if self._bundle() is None:
            return None
        viewer = self._workspace.viewer
        active: Layer | None = viewer.layers.selection.active
        try:
            return structures_of(active, self._workspace.image_space.placement, viewer.dims.point)
        except MedvarError as error:
            self._workspace.tell(str(error))
            return None
