"""`EditController`: edits of the current image: resample, change the condition, mix, and replace tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generate.resample import ResampleOptions
from medvar_engine.generate.trace import Request
from medvar_engine.types import FloatArray
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.layers import masks
from napari_medvar.panels.edit_panel import EditPanel
from napari_medvar.panels.token_panel import TokenPanel
from napari_medvar.session.differing import closeups, place_of_token
from napari_medvar.session.image_names import label_of

_NEIGHBOURS = 9  # tokens shown: the present one and the most similar others


@dataclass(frozen=True, eq=False, slots=True)
class TokenChoice:
    """One place of a token map, and previews with other tokens there."""

    scale: int
    row: int
    column: int
    tokens: Sequence[int]  # the present token first
    previews: FloatArray  # (N, H, W)


class EditController:
    """Connects the edit panel and the token panel to the session."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._choice: TokenChoice | None = None
        self._after: int | None = None  # the image that `flip` returns to
        self._state = State(idle=False, has_image=False, complete=False)  # at the last refresh
        self.panel, self.tokens = EditPanel(workspace.icons), TokenPanel()
        self.tokens.hide()
        self.panel.column.addWidget(self.tokens)
        self.panel.resample.connect(self.resample)
        self.panel.recondition.connect(self.recondition)
        self.panel.paint.connect(self.paint)
        self.panel.graft_chosen.connect(self._warn_of_graft)
        self.panel.masked.connect(self._mask_chosen)
        self.panel.brush.connect(self.set_brush)
        self.panel.invert.connect(self.invert_mask)
        self.panel.clear_mask.connect(self.clear_mask)
        self.panel.flip.connect(self.flip)
        self.panel.graft.connect(self.graft)
        self.panel.picking.connect(self.set_picking)
        self.panel.moved.connect(self._show_scale)
        self.tokens.chosen.connect(self.replace)
        events = workspace.viewer.layers.events
        self._layer_events = events.inserted, events.removed, events.renamed
        for event in self._layer_events:
            event.connect(self._layers_changed)  # napari keeps only weak references

    @property
    def scale(self) -> int:
        """The scale at which edits begin: that of the panel, but at most the finest scale that the image has."""
        current = self._workspace.session.node
        return self.panel.from_scale if current is None else max(0, min(self.panel.from_scale, current.depth - 1))

    # -- edits ------------------------------------------------------------------------------------------------------

    def resample(self) -> None:
        """Draw the current image again from a scale on, with a new seed."""
        self._workspace.sampling.roll()
        self._resample(self._workspace.request())

    def recondition(self) -> None:
        """Draw the current image again from a scale on, with the panel's condition and the same seed."""
        current = self._workspace.session.node
        if current is not None:
            asked = self._workspace.request()
            self._resample(Request(asked.condition, current.trace.request.seed, asked.sampling))

    def options(self) -> ResampleOptions:
        """The panel's mask and locked scales. Raises `MedvarError` when the mask is empty."""
        options: ResampleOptions = {"keep": self.panel.locked}
        if (layer := self.panel.mask_layer) is not None:
            placement, point = self._workspace.image_space.placement, self._workspace.viewer.dims.point
            options["mask"] = masks.mask_of(layer, placement, point)
            options["exact_outside"] = self.panel.exact_outside
            options["soft_edge"] = self.panel.soft_edge
        return options

    def paint(self) -> None:
        """Select the brush on the chosen mask if `paint` made it for this placement, or else on a new mask."""
        viewer, placement, mask = self._workspace.viewer, self._workspace.image_space.placement, self._own_mask
        if mask is not None and masks.fits(mask, placement):
            masks.take_brush(viewer, mask)
            return
        layer = masks.add_mask(viewer, placement)
        self._offer_masks()
        self.panel.choose_mask(layer)

    def set_brush(self, size: int) -> None:
        """Set the diameter of the brush in pixels."""
        if (mask := self._own_mask) is not None:
            mask.brush_size = size
            masks.take_brush(self._workspace.viewer, mask)

    def invert_mask(self) -> None:
        """Swap painted and unpainted areas of the mask."""
        if (mask := self._own_mask) is not None:
            masks.invert(mask)

    def clear_mask(self) -> None:
        """Erase the mask."""
        if (mask := self._own_mask) is not None:
            masks.clear(mask)

    def flip(self) -> None:
        """Show the image that the current one was made from, or return from it."""
        session, node = self._workspace.session, self._workspace.session.node
        if node is None:
            return
        after = next((each for each in session.tree.children(node.id) if each.id == self._after), None)
        if after is not None:
            self._after = None
            session.select(after.id)
        elif node.parent is not None:
            self._after = node.id
            session.select(node.parent)
        self._workspace.show_current()

    def graft(self, coarse: int) -> None:
        """Combine the coarse scales of the image with id ``coarse`` with the fine scales of the current image."""
        session, k, fine = self._workspace.session, self.scale, self._workspace.session.tree.current
        if fine is not None:
            self._workspace.start("make", lambda stop: session.graft(k, coarse=coarse, fine=fine, should_stop=stop))

    def replace(self, token: int) -> None:
        """Use another token at the place that was picked last."""
        choice, session = self._choice, self._workspace.session
        if choice is None or session.opened is None:
            return
        if token == choice.tokens[0]:
            self._workspace.show_error(f"Token {token} is already at this place. Choose another token.")
            return
        side = session.opened.bundle.schedule[choice.scale]
        where = np.zeros((side, side), dtype=np.bool_)
        where[choice.row, choice.column] = True
        tokens = np.full((side, side), token, dtype=np.int64)
        self._workspace.start(
            "make", lambda stop: session.replace_tokens(choice.scale, where, tokens, should_stop=stop)
        )
        self._ask()

    def pick(self, row: int, column: int) -> None:
        """Show previews with other tokens at one place of the scale at which edits begin."""
        session, k = self._workspace.session, self.scale

        def look() -> Iterator[TokenChoice]:
            if session.node is None:
                return
            token = int(session.node.trace.pyramid.maps[k][0, row, column])
            others = [int(other) for other in session.nearby_tokens(k, token, _NEIGHBOURS) if other != token]
            all_tokens = [token, *others]
            yield TokenChoice(k, row, column, all_tokens, session.token_previews(k, row, column, all_tokens))

        self._workspace.start("compute", lambda stop: look())

    def set_picking(self, on: bool) -> None:
        """Set whether a click into the image picks a token."""
        callbacks = self._workspace.viewer.mouse_drag_callbacks
        if on and self._clicked not in callbacks:
            callbacks.append(self._clicked)
        elif not on and self._clicked in callbacks:
            callbacks.remove(self._clicked)
        self.tokens.setVisible(on)
        self._ask()

    # -- called by the widget ---------------------------------------------------------------------------------------

    def offer(self, bundle: Bundle) -> None:
        """Adapt the panels to another model."""
        self.panel.offer_scales(len(bundle.schedule))
        self._ask()

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, TokenChoice):
            self._choice = result
            title = f"Scale {result.scale}, row {result.row}, column {result.column}: token {result.tokens[0]}"
            opened, images = self._workspace.session.opened, result.previews
            assert opened is not None
            side = opened.bundle.schedule[result.scale]
            near, whole = closeups(images, place_of_token(result.row, result.column, side, images.shape[1]))
            self.tokens.show_tokens(title, result.tokens, near, whole)

    def refresh(self, state: State) -> None:
        """Update which controls are enabled."""
        session = self._workspace.session
        others = [n for n in session.tree.nodes if n.id != session.tree.current and n.complete]
        self.panel.offer_grafts((label_of(node), node.id) for node in others)
        self._warn_of_graft()
        self._offer_masks()
        self._state = state
        self._show_scale()
        self.tokens.setEnabled(state.idle)

    def leave_viewer(self) -> None:
        """Disconnect from the viewer; the panels may be deleted already."""
        viewer = self._workspace.viewer
        if self._clicked in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._clicked)
        for event in self._layer_events:
            event.disconnect(self._layers_changed)

    # -- internals --------------------------------------------------------------------------------------------------

    def _show_scale(self) -> None:
        """Show the scale at which edits begin, and enable the edits that are possible from there."""
        session, state, node = self._workspace.session, self._state, self._workspace.session.node
        made_from = node is not None and (
            node.parent is not None or any(each.id == self._after for each in session.tree.children(node.id))
        )
        self.panel.show_scale(self.scale)
        self.panel.allow(
            has_image=state.idle and state.has_image, complete=state.complete, scale=self.scale, made_from=made_from
        )

    def _resample(self, request: Request) -> None:
        session, k = self._workspace.session, self.scale
        try:
            options = self.options()
        except MedvarError as error:
            self._workspace.show_error(str(error))
            return
        started = self._workspace.start("make", lambda stop: session.resample(k, request, should_stop=stop, **options))
        if started and (mask := self._own_mask) is not None:
            masks.fade(mask)

    def _clicked(self, viewer: Any, event: Any) -> Iterator[None]:
        """Handle a mouse click in the canvas."""
        self._pick_at(event.position)
        return _consumed(viewer.layers.selection.active, event)

    def _pick_at(self, position: Sequence[float]) -> None:
        session = self._workspace.session
        if session.node is None or self.scale >= session.node.depth:
            return
        placement = self._workspace.image_space.placement
        side = session.node.trace.pyramid.schedule[self.scale]
        row, column = (int(np.floor((pixel + 0.5) * side / placement.size)) for pixel in placement.pixel(position))
        if 0 <= row < side and 0 <= column < side:
            self.pick(row, column)

    def _warn_of_graft(self) -> None:
        """Warn if the two images show different regions or modalities, because their layouts seldom fit."""
        tree, chosen = self._workspace.session.tree, self.panel.graft_from
        others = [node.trace.request.condition for node in tree.nodes if node.id == chosen]
        if not others or tree.current_node is None:
            self.panel.warn_of_graft("")
            return
        own, other = tree.current_node.trace.request.condition, others[0]
        differ = (own.modality, own.region) != (other.modality, other.region)
        self.panel.warn_of_graft(
            f"⚠ The other image shows “{other}”, this one “{own}”: they seldom fit together." if differ else ""
        )

    @property
    def _own_mask(self) -> Any:
        """The chosen mask if Paint made it."""
        return self.panel.mask_layer if masks.own_mask(self.panel.mask_layer) else None

    def _mask_chosen(self) -> None:
        mask = self._own_mask
        self.panel.show_brush(None if mask is None else int(mask.brush_size))

    def _ask(self) -> None:
        self._choice = None
        self.tokens.ask()

    def _layers_changed(self, event: object = None) -> None:
        self._offer_masks()

    def _offer_masks(self) -> None:
        chosen = self.panel.mask_layer
        self.panel.offer_masks(masks.mask_layers(self._workspace.viewer))
        self._mask_chosen()
        if chosen is not None and self.panel.mask_layer is None:
            self._workspace.show_error(f"The mask “{chosen.name}” was removed. Edits now change the whole image.")


def _consumed(layer: Any, event: Any) -> Iterator[None]:
    """Keeps the active layer from painting or drawing until the mouse button is released."""
    mode = getattr(layer, "mode", None)
    if mode is None:
        return
    layer.mode = "pan_zoom"
    yield
    while event.type == "mouse_move":
        yield
    layer.mode = mode
