"""The session file ``*.medvar``: the images of a session as tokens, their history, and the settings of the panels.

It is gzip-compressed JSON; see ``docs/reference/session-file.md``. It holds no pixels: the model decodes them again.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import traces_from_dict, traces_to_dict
from medvar_engine.generate.validation import check_model
from medvar_engine.storage import write_files
from medvar_engine.untrusted import plain_json
from medvar_engine.write.provenance import RECONSTRUCTION, SOFTWARE, STATEMENT
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.opened_bundle import OpenedBundle
from napari_medvar.session.trace_tree import Node, TraceTree

SUFFIX = ".medvar"
SCHEMA_VERSION = 2
_READABLE = (1, 2)  # version 1 did not store the position of real images
MAX_BYTES = 64 * 2**20  # of the JSON text; about 4,000 images
_MAX_NAME = 200  # characters


@dataclass(frozen=True, eq=False, slots=True)
class SavedSession:
    """The content of a session file."""

    bundle_id: str  # the bundle that made all images
    bundle: str  # name of the bundle, to show to users
    folder: str  # folder of the bundle when it was saved; only a hint
    nodes: tuple[Node, ...]
    current: int | None
    panels: Mapping[str, Any] = field(default_factory=dict)  # untrusted and not checked

    @classmethod
    def of(cls, tree: TraceTree, bundle_id: str, bundle: str, folder: Path, panels: Mapping[str, Any]) -> SavedSession:
        """The content to write for a tree."""
        return cls(bundle_id, bundle, str(folder), tree.nodes, tree.current, panels)


def write_session(path: Path, session: SavedSession) -> Path:
    """Write ``*.medvar`` and return its path. Raises `MedvarError` if that fails; an existing file then stays."""
    if path.suffix.lower() != SUFFIX:
        raise MedvarError(f"{path} must end in {SUFFIX}.")
    reconstructions = [node.id for node in session.nodes if node.trace.encoded]
    values = {
        "medvar_session": SCHEMA_VERSION,
        "synthetic": not reconstructions,
        "statement": STATEMENT if not reconstructions else f"{STATEMENT} Not so the reconstructions: {RECONSTRUCTION}",
        "reconstructions": reconstructions,
        "software": SOFTWARE,
        "model": session.bundle_id,
        "bundle": session.bundle,
        "folder": session.folder,
        "nodes": [_node_to_dict(node) for node in session.nodes],
        "current": session.current,
        "panels": session.panels,
        "traces": traces_to_dict([node.trace for node in session.nodes]),
    }
    try:
        text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MedvarError(f"Panel settings and images must be plain JSON values to be saved: {error}.") from error
    content = text.encode("utf-8")
    if len(content) > MAX_BYTES:
        raise MedvarError(f"The session is too large for one file ({MAX_BYTES >> 20} MiB): delete some of its images.")
    try:
        plain_json.check_counts(text)
    except ValueError as error:
        raise MedvarError(f"The session is too large for one file ({error}): delete some of its images.") from error
    # Without a time stamp, so that the same session gives the same file.
    write_files({path: gzip.compress(content, compresslevel=5, mtime=0)})
    return path


def savable(session: SavedSession) -> tuple[SavedSession, tuple[str, ...]]:
    """The session without what cannot be written, and the names of what was left out: images, panel settings.

    Images made from one that is left out stay, and become children of its parent.
    """
    lost = {node.id: node for node in session.nodes if _unsavable(_node_image_to_dict(node))}
    parents = {node.id: node.parent for node in session.nodes}

    def above(parent: int | None) -> int | None:
        while parent in lost:
            parent = parents[parent]
        return parent

    nodes = tuple(replace(node, parent=above(node.parent)) for node in session.nodes if node.id not in lost)
    names = [f"image {number}{f' ({node.name})' if node.name else ''}" for number, node in lost.items()]
    panels = session.panels
    if _unsavable(lambda: panels):
        names, panels = [*names, "the settings of the panels"], {}
    current = session.current if session.current not in lost else nodes[-1].id if nodes else None
    return replace(session, nodes=nodes, current=current, panels=panels), tuple(names)


def read_session(path: Path) -> SavedSession:
    """Read ``*.medvar``, which may be untrusted. Raises `MedvarError` that says what is wrong with the file."""
    try:
        values = plain_json.loads(_unpacked(path))  # without a name, so that it is not in memory beside its values
        version = values["medvar_session"]
        if version not in _READABLE:
            raise MedvarError(
                f"{path} has format {version}; this version reads up to {SCHEMA_VERSION}. Update napari-medvar."
            )
        return _session(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MedvarError(f"{path} is not a MedVAR session, or it is damaged: {error!r}.") from error
    except MedvarError as error:
        raise MedvarError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MedvarError(f"{path} is not a MedVAR session, or is incomplete: {error}.") from error
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
    if len(content) > MAX_BYTES:
        raise MedvarError(f"{path} was not opened: it is larger than the limit for sessions ({MAX_BYTES >> 20} MiB).")
    return content


def tree_of(saved: SavedSession, opened: OpenedBundle) -> TraceTree:
    """The images of a session file as a tree of nodes. Raises `MedvarError` when ``opened`` did not make them."""
    for node in saved.nodes:
        check_model(opened.generator.backend.info, node.trace)
    nodes = tuple(
        node
        if node.image_space is None
        else replace(node, image_space=replace(node.image_space, bundle=str(opened.bundle.path)))
        for node in saved.nodes
    )
    return TraceTree(nodes, saved.current, 1 + max((node.id for node in nodes), default=-1))


def _session(values: Mapping[str, Any]) -> SavedSession:
    traces = traces_from_dict(values["traces"])
    nodes: list[Node] = []
    known: set[int | None] = {None}
    for node, trace in zip(values["nodes"], traces, strict=True):
        node_id, parent = node["id"], node["parent"]
        if type(node_id) is not int or not 0 <= node_id < 2**53 or node_id in known:
            raise ValueError(f"an image has the id {node_id!r}")
        if parent not in known:  # a parent comes before its children
            raise ValueError(f"the parent {parent!r} of image {node_id} is not listed before it")
        if not trace.pyramid.depth:
            raise ValueError(f"image {node_id} has no scales")
        known.add(node_id)
        image_space = ImageSpace.from_dict(node["scene"], str(values["folder"])) if "scene" in node else None
        starred = node.get("starred") is True
        nodes.append(Node(node_id, trace, parent, str(node["name"])[:_MAX_NAME], image_space, starred))
    if values["current"] not in known:
        raise ValueError(f"the current image {values['current']!r} is not in the file")
    if not isinstance(values["panels"], dict):
        raise TypeError("the settings of the panels are not a dictionary")
    return SavedSession(
        bundle_id=str(values["model"]),
        bundle=str(values["bundle"]),
        folder=str(values["folder"]),
        nodes=tuple(nodes),
        current=values["current"],
        panels=values["panels"],
    )


def _node_image_to_dict(node: Node) -> Callable[[], Any]:
    return lambda: {**_node_to_dict(node), "trace": traces_to_dict([node.trace])}


def _unsavable(values: Callable[[], Any]) -> bool:
    """Whether a value cannot be written, for any reason."""
    try:
        json.dumps(values(), allow_nan=False)
    except Exception:
        return True
    return False


def _node_to_dict(node: Node) -> dict[str, Any]:
    values: dict[str, Any] = {"id": node.id, "parent": node.parent, "name": node.name}
    if node.starred:
        values["starred"] = True
    return values if node.image_space is None else {**values, "scene": node.image_space.to_dict()}
