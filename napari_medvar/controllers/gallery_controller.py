"""`GalleryController`: shows the session's images as thumbnails, and stars, deletes and saves them."""

from __future__ import annotations

from collections.abc import Sequence

from medvar_engine.bundle.read import Bundle
from napari_medvar.controllers.history_controller import HistoryController, about
from napari_medvar.controllers.save_controller import SaveController
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.panels.gallery_panel import GalleryItem, GalleryPanel
from napari_medvar.session.generation_session import Preview
from napari_medvar.session.image_names import label_of


class GalleryController:
    """Connects the gallery to the session. Its images are those of the history."""

    def __init__(self, workspace: Workspace, history: HistoryController, save: SaveController) -> None:
        self._workspace, self._save = workspace, save
        self.panel = GalleryPanel(workspace.icons)
        self.panel.select.connect(history.select)
        self.panel.star.connect(self.star)
        self.panel.delete.connect(history.delete)
        self.panel.save_starred.connect(self.save_starred)
        self.panel.filtered.connect(workspace.refresh)

    def star(self, images: Sequence[int], starred: bool) -> None:
        """Star images, or remove their stars."""
        self._workspace.session.star(images, starred=starred)
        self._workspace.refresh()

    def save_starred(self) -> None:
        """Ask for a folder, and write the starred images to it."""
        if self._save.panel.ask_folder():
            self._save.panel.choose_what("starred")
            self._save.save()

    def offer(self, bundle: Bundle) -> None:
        """Adapt the panel to another model."""

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, Preview) and result.newest:
            self.panel.show_icon(result.node.id)

    def refresh(self, state: State) -> None:
        """Show the images of the session, and update which controls are enabled."""
        nodes = self._workspace.session.tree.nodes
        shown = [node for node in nodes if node.starred or not self.panel.only_starred]
        self.panel.show_images(
            [GalleryItem(node.id, str(node.id + 1), f"{label_of(node)}. {about(node)}", node.starred) for node in shown]
        )
        self.panel.allow(idle=state.idle)
