"""`OpenedBundle`: a bundle with its generator; and functions that find the bundle that made an image."""

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

_CACHE = 128 * 2**20  # bytes of keys and values; the current image stays in the cache whatever its size


@dataclass(frozen=True, eq=False, slots=True)
class OpenedBundle:
    """A bundle with its generator."""

    bundle: Bundle
    generator: Generator

    @property
    def id(self) -> str:
        """The id of its weights, which traces record."""
        return self.generator.backend.info.bundle_id

    def made(self, name: str) -> bool:
        """Whether ``name``, the ``model`` of a trace, is the digest of this bundle's graphs or weights."""
        return name in (self.id, self.generator.backend.info.weights or self.id)


def open_bundle(name: str | Path | None, bundle_id: str | None = None, *, device: str = "auto") -> OpenedBundle:
    """Open a shipped bundle by name or any bundle by folder; None is the first shipped one.

    ``bundle_id`` is the digest that traces record for the bundle or its weights. Raises `MedvarError` if the bundle has
    another digest.
    """
    # A name from the list of models means the shipped one, whatever folders are here.
    bundle = read_bundle(shipped_bundles().get(str(name)) or find_bundle(name))
    if bundle_id not in (None, bundle.bundle_id, bundle.weights):
        raise MedvarError(f"The model in {bundle.path} has changed. Open it again.")
    return OpenedBundle(bundle, Generator(OnnxBackend(bundle, device=device), PrefixCache(_CACHE)))


def open_served(server: Server) -> OpenedBundle:
    """Open the model that a server runs."""
    remote = RemoteBackend(server)
    return OpenedBundle(remote.bundle, Generator(remote))


def open_bundle_of(bundle_id: str, hints: Iterable[str], device: str, server: Server | None = None) -> OpenedBundle:
    """Open the model that made an image: that of the user's server if it matches, or else see `find_bundle_of`."""
    if server is not None and (served := open_served(server)).made(bundle_id):
        return served
    return open_bundle(find_bundle_of(bundle_id, hints).path, bundle_id, device=device)


def find_bundle_of(bundle_id: str, hints: Iterable[str]) -> Bundle:
    """The bundle with the id ``bundle_id``, in one of the folders ``hints`` or among the shipped bundles.

    Raises `MedvarError`, which lists the places searched, when it is not found. Hints may come from an untrusted file:
    they are only read, never from the network, and the digest of the bundle must match.
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
        if bundle_id in (bundle.bundle_id, bundle.weights or bundle.bundle_id):
            return bundle
    raise MedvarError(
        f"The model that made these images was not found (sha256 {bundle_id[:12]}…). Searched: "
        f"{', '.join(looked) or 'nothing'}. Open that model first, then open this again."
    )


def _is_local(folder: str) -> bool:
    return bool(folder) and not folder.startswith(("\\\\", "//"))  # a network path: Windows would send a password there
