"""napari's reader of session files: in a window, the widget goes on with the session.

Elsewhere, in a script without a window, the pictures that nothing else was made from become layers.

PNG and NIfTI that medvar wrote are not taken here: napari would ask everybody, for every PNG, whom to open it with. The
widget opens them with `GenerationSession.open`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvar_engine.errors import MedvarError
from medvar_engine.write.provenance import STATEMENT
from napari_medvar.layers.image_layers import METADATA
from napari_medvar.layers.layer_data import LayerData, layer_data
from napari_medvar.menu import widget_of
from napari_medvar.session.opened_model import open_model_of
from napari_medvar.session.previews import Previews
from napari_medvar.session.session_file import SUFFIX, read_session, tree_of
from napari_medvar.session.trace_tree import Node
from napari_medvar.settings import read_settings

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

MOST_LAYERS = 20  # more would take napari many seconds


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """What napari calls with the files to open: a function for session files, None for others."""
    return _read_in_napari if all(one.lower().endswith(SUFFIX) for one in _listed(path)) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of session files. The picture that was looked at last is visible, the others are hidden.

    Raises `MedvarError` for a damaged file or when the model is not here.
    """
    return [layer for one in _listed(path) for layer in _read(Path(one).absolute())]


def session_of(layer: Layer) -> Path | None:
    """The session file that ``layer`` was read from, so that a widget can open all of it; None for other layers."""
    text = layer.metadata.get(METADATA, {}).get("session")
    return None if text is None else Path(text)


def _read_in_napari(path: str | Sequence[str]) -> list[Any]:
    """`read`, but what is wrong is shown as it stands: napari would bury it under advice to try other plugins.

    One file in a window is opened by the widget, which restores the whole session, history and all.
    """
    from napari.utils.notifications import show_error

    try:
        viewer = _window()
        if viewer is not None and len(_listed(path)) == 1:
            widget_of(viewer).open_session(Path(_listed(path)[0]).absolute())
            return [(None,)]  # npe2's word for: dealt with, no layers
        return read(path)
    except MedvarError as error:
        show_error(str(error))
        return [(None,)]


def _window() -> napari.Viewer | None:
    """The viewer in front, if there is one."""
    import napari

    return napari.current_viewer()


def _read(path: Path) -> list[LayerData]:
    saved = read_session(path)
    settings = read_settings()
    model = open_model_of(saved.bundle_id, [saved.folder], settings.device, settings.connection)
    tree = tree_of(saved, model)
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
            previews.of(model.generator, node, node.generation.depth - 1),
            model.bundle,
            _name(node),
            visible=node is tips[-1],
            session=str(path),
            statement=STATEMENT,
        )
        for node in tips[-MOST_LAYERS:]
    ]


def _name(node: Node) -> str:
    request = node.trace.request
    return node.name or f"{request.condition} · seed {request.seed}"


def _listed(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path
