"""The plugin's settings. napari stores them and shows them under Preferences; without napari the defaults hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medvar_engine.remote.connection import Server, read_token
from napari_medvar.session.autosave import Autosave
from napari_medvar.session.generation_session import GenerationSession, OpenBundle
from napari_medvar.session.opened_bundle import OpenedBundle, open_bundle, open_served

PLUGIN = "napari-medvar"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that `napari.yaml` declares as configurations, with the same defaults."""

    device: str = "auto"  # auto, cpu or cuda
    bundle: str = ""  # name or folder of the bundle opened first; "" is the first shipped one
    show_previews: bool = True  # while an image is made
    autosave: bool = True
    autosave_folder: str = ""  # "" is the user's state folder
    server: str = ""  # address of a `medvar serve` that generates the images; "" is this computer
    token_file: str = ""  # a file with the server's token in its first line

    @property
    def sessions(self) -> Path | None:
        """The folder in which the autosave writes and looks for sessions; None for its default."""
        return Path(self.autosave_folder).expanduser() if self.autosave_folder else None

    @property
    def connection(self) -> Server | None:
        """The connection to the server; None without one. Raises `MedvarError` for an invalid address or token file."""
        if not self.server:
            return None
        return Server(self.server, read_token(Path(self.token_file).expanduser()) if self.token_file else None)


def read_settings() -> Settings:
    """The current settings."""
    try:
        from napari.settings import get_plugin_settings

        values = get_plugin_settings(PLUGIN)
    except (ImportError, KeyError):  # no napari, or the plugin is not registered in it
        return Settings()
    making, keeping = values.making, values.keeping
    return Settings(
        making.device,
        making.bundle.strip(),
        making.show_previews,
        keeping.autosave,
        keeping.autosave_folder.strip(),
        making.server.strip(),
        making.token_file.strip(),
    )


def write_settings(settings: Settings) -> None:
    """Store where models run, for the next start of napari. Without napari nothing is stored."""
    try:
        from napari.settings import get_plugin_settings

        making = get_plugin_settings(PLUGIN).making
    except (ImportError, KeyError):
        return
    making.device, making.server, making.token_file = settings.device, settings.server, settings.token_file


def opener(settings: Settings) -> OpenBundle:
    """The function by which a session opens models according to ``settings``."""
    return partial(_open, settings) if settings.server else partial(open_bundle, device=settings.device)


def new_session(settings: Settings) -> GenerationSession:
    """A new session according to ``settings``."""
    return GenerationSession(
        opener(settings),
        autosave=Autosave(settings.sessions) if settings.autosave else None,
        show_previews=settings.show_previews,
    )


def _open(settings: Settings, name: str | Path | None, bundle_id: str | None = None) -> OpenedBundle:
    """The server's model instead of a shipped one. Folders and models named by a trace are opened on this computer."""
    server = None if isinstance(name, Path) or bundle_id else settings.connection
    return open_bundle(name, bundle_id, device=settings.device) if server is None else open_served(server)
