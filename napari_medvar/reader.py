"""napari's reader of session files.

In a napari window, the widget opens the whole session. In a script without a window, the images from which no other
image was made become layers.

PNG and NIfTI files written by medvar are not read here: napari would then ask every user, for every PNG, which reader
to use. The widget opens such files with `GenerationSession.open`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvar_engine.errors import MedvarError
from medvar_engine.write.provenance import RECONSTRUCTION, STATEMENT
from napari_medvar.layers.image_layers import METADATA
from napari_medvar.layers.layer_data import LayerData, layer_data
from napari_medvar.menu import widget_of
from napari_medvar.session.opened_bundle import open_bundle_of
from napari_medvar.session.previews import Previews
from napari_medvar.session.session_file import SUFFIX, read_session, tree_of
from napari_medvar.session.trace_tree import Node
from napari_medvar.settings import read_settings

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

MOST_LAYERS = 20  # more would take napari many seconds


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """The reader function for session files; None for other files. napari calls this with the paths to open."""
    return _read_in_napari if all(one.lower().endswith(SUFFIX) for one in _listed(path)) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of session files. The current image of each session is visible; the others are hidden.

    Raises `MedvarError` for a damaged file, or when the model that made the images cannot be found.
    """
    return [layer for one in _listed(path) for layer in _read(Path(one).absolute())]


def session_of(layer: Layer) -> Path | None:
    """The session file that ``layer`` was read from, so that a widget can open it; None for other layers."""
    text = layer.metadata.get(METADATA, {}).get("session")
    return None if text is None else Path(text)


def _read_in_napari(path: str | Sequence[str]) -> list[Any]:
    """`read`, but errors are shown in their own words: napari would hide them under advice to try other plugins.

    In a window, the files are passed to the widget, which restores the whole session with its history.
    """
    from napari.utils.notifications import show_error

    layers: list[Any] = []
    viewer = _window()
    for one in _listed(path):
        if viewer is not None:
            widget_of(viewer).open_session(Path(one).absolute())
            continue
        try:
            layers += read(one)
        except MedvarError as error:  # the other files are opened all the same
            show_error(str(error))
    return layers or [(None,)]  # npe2's value for "handled, no layers"


def _window() -> napari.Viewer | None:
    """The active viewer; None when there is none."""
    import napari

    return napari.current_viewer()


def _read(path: Path) -> list[LayerData]:
    saved = read_session(path)
    settings = read_settings()
    opened = open_bundle_of(saved.bundle_id, [saved.folder], settings.device, settings.connection)
    tree = tree_of(saved, opened)
    tips = [node for node in tree.tips if node.id != tree.current]
    if tree.current_node is not None:
        tips.append(tree.current_node)  # on top
    if len(tips) > MOST_LAYERS:
        warnings.warn(
            f"{path.name} holds {len(tips)} images; the newest {MOST_LAYERS} became layers. "
            "Open it in the MedVAR widget to have all.",
            stacklevel=2,
        )
    previews = Previews()
    return [
        layer_data(
            previews.of(opened.generator, node, node.depth - 1),
            opened.bundle,
            _name(node),
            visible=node is tips[-1],
            session=str(path),
            statement=RECONSTRUCTION if node.trace.encoded else STATEMENT,
        )
        for node in tips[-MOST_LAYERS:]
    ]


def _name(node: Node) -> str:
    request = node.trace.request
    return node.name or f"{request.condition} · seed {request.seed}"


def _listed(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path
