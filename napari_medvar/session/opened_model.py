"""`Model`: an opened bundle, and the bundle that made a picture found again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle, find_bundle, read_bundle, shipped_bundles
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_cache import PrefixCache
from medvar_engine.remote.connection import Server
from medvar_engine.remote.remote_backend import RemoteBackend

_CACHE = 128 * 2**20  # bytes of keys and values; the image that is worked on stays whatever its size


@dataclass(frozen=True, eq=False, slots=True)
class Model:
    """An opened bundle."""

    bundle: Bundle
    generator: Generator

    @property
    def id(self) -> str:
        """The name for its weights that traces carry."""
        return self.generator.backend.info.bundle_id

    def made(self, name: str) -> bool:
        """Whether a trace's ``model`` names this one, by its graphs or its weights."""
        return name in (self.id, self.generator.backend.info.weights or self.id)


def open_bundle(name: str | Path | None, model: str | None = None, *, device: str = "auto") -> Model:
    """The model of a shipped bundle's name or a bundle's folder; None is the first shipped one.

    ``model`` is what traces name: the bundle's digest or its weights. Raises `MedvarError` for another.
    """
    bundle = read_bundle(find_bundle(name))
    if model not in (None, bundle.bundle_id, bundle.weights):
        raise MedvarError(f"{bundle.path} is another model than it was. Open it again.")
    return Model(bundle, Generator(OnnxBackend(bundle, device=device), PrefixCache(_CACHE)))


def open_served(server: Server) -> Model:
    """The model that a server runs."""
    remote = RemoteBackend(server)
    return Model(remote.bundle, Generator(remote))


def open_model_of(model: str, hints: Iterable[str], device: str, server: Server | None = None) -> Model:
    """The model that made a picture, opened: that of the user's server, if it is the one, or see `find_bundle_of`."""
    if server is not None and (served := open_served(server)).made(model):
        return served
    return open_bundle(find_bundle_of(model, hints).path, model, device=device)


def find_bundle_of(model: str, hints: Iterable[str]) -> Bundle:
    """The bundle of that model, in one of the folders ``hints`` or among those that ship.

    Raises `MedvarError` saying what was looked at. A hint may be a stranger's: it is only read, never on the network,
    and what it holds must be that very model.
    """
    looked: list[str] = []
    for folder in (*filter(_is_local, hints), *map(str, shipped_bundles().values())):
        if folder in looked:
            continue
        looked.append(folder)
        try:
            bundle = read_bundle(Path(folder))
        except MedvarError:
            continue
        if model in (bundle.bundle_id, bundle.weights or bundle.bundle_id):
            return bundle
    raise MedvarError(
        f"The model of these images is not here (sha256 {model[:12]}…). Looked at: {', '.join(looked) or 'nothing'}. "
        "Open the model that made them first, then this again."
    )


def _is_local(folder: str) -> bool:
    return bool(folder) and not folder.startswith(("\\\\", "//"))  # Windows would send a password there
