"""`MapsController`: requests maps that the model computes: the likelihood maps and the anomaly map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medvar_engine.bundle.read import Bundle
from medvar_engine.types import FloatArray
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.layers.image_view import COMPUTED, Maps
from napari_medvar.panels.view_panel import View


@dataclass(frozen=True, eq=False, slots=True)
class Computed:
    """The maps of one view of one image."""

    view: View
    node: int
    depth: int
    maps: tuple[FloatArray, ...]


class MapsController:
    """Keeps the maps of the current image, and requests those that the view needs."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[View, Computed] = {}

    @property
    def known(self) -> Maps:
        """The maps of the current image."""
        node = self._workspace.session.node
        if node is None:
            return {}
        now = node.id, node.depth
        return {view: computed.maps for view, computed in self._known.items() if (computed.node, computed.depth) == now}

    @property
    def wanted(self) -> bool:
        """Whether the view needs a map that has not been computed."""
        view = self._workspace.views.view
        return view in COMPUTED and self._workspace.session.node is not None and view not in self.known

    def compute(self) -> None:
        """Compute the maps of the view in the worker."""
        session, view = self._workspace.session, self._workspace.views.view

        def ask() -> Iterator[Computed]:
            node = session.node
            if node is not None:
                maps = session.likelihood_maps() if view == "likelihood" else (session.anomaly_map(),)
                yield Computed(view, node.id, node.depth, maps)

        self._workspace.start("compute", lambda stop: ask(), "Computing the map…")

    def give_up(self) -> None:
        """Do not request the same map again, because it failed."""
        if self.wanted:
            self._workspace.views.show_view("image")

    def offer(self, bundle: Bundle) -> None:
        """Adapt to another model."""
        self._known.clear()

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, Computed):
            self._known[result.view] = result

    def refresh(self, state: State) -> None:
        """Do nothing, because there are no controls."""
