"""Shows the mask of structures of the current image, and generates images for a mask that the user paints."""

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
    """Carries out the commands in the menus of Labels layers, for a model that makes masks."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._layers = StructureLayers(workspace.viewer)

    def paint(self) -> None:
        """Add a layer to paint structures on, on the grid of the current image or of a new one."""
        if (bundle := self._bundle()) is not None:
            self._layers.paint(bundle.structures, self._workspace.image_space.placement)

    def draw(self) -> None:
        """Generate new images for the mask in the active Labels layer, with the settings of the panels."""
        session, request, count = self._workspace.session, self._workspace.request(), self._workspace.sampling.count
        if (mask := self._active_mask()) is not None:
            self._workspace.start(
                "make", lambda stop: session.draw_to_mask(request, mask, count=count, should_stop=stop)
            )

    def redraw(self) -> None:
        """Regenerate the current image from the displayed scale on, with the mask in the active Labels layer."""
        session, request, scale = self._workspace.session, self._workspace.request(), self._workspace.scale
        if (mask := self._active_mask()) is not None:
            self._workspace.start("make", lambda stop: session.redraw_to_mask(scale, request, mask, should_stop=stop))

    def offer(self, bundle: Bundle) -> None:
        """Do nothing: the commands read the model when they run."""

    def take(self, result: object) -> None:
        """Show the mask of a preview that is the newest one of the current image."""
        session = self._workspace.session
        if not isinstance(result, Preview) or result.mask is None or not result.newest or session.opened is None:
            return
        if result.node.id == session.tree.current:
            placement = session.image_space_of(result.node).placement
            self._layers.show(result.mask, session.opened.bundle.structures, placement)

    def refresh(self, state: State) -> None:
        """Do nothing: there are no widgets to enable."""

    # -- internals --------------------------------------------------------------------------------------------------

    def _bundle(self) -> Bundle | None:
        """The loaded model if it makes masks; otherwise None, after a message to the user."""
        opened = self._workspace.session.opened
        if opened is None:
            return None
        if not opened.bundle.structures:
            self._workspace.show_error(
                f"The model {opened.bundle.name} makes images without masks. Open a bundle that makes masks to draw to "
                "labels."
            )
            return None
        return opened.bundle

    def _active_mask(self) -> MaskArray | None:
        """The structures ``(H, W)`` of the active layer; None, after a message to the user, if it has none."""
        if self._bundle() is None:
            return None
        viewer = self._workspace.viewer
        active: Layer | None = viewer.layers.selection.active
        try:
            return structures_of(active, self._workspace.image_space.placement, viewer.dims.point)
        except MedvarError as error:
            self._workspace.show_error(str(error))
            return None
