"""The plugin's settings, which napari keeps and shows under Preferences; the defaults where there is no napari."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medvar_engine.remote.connection import Server, read_token
from napari_medvar.session.autosave import Autosave
from napari_medvar.session.generation_session import GenerationSession, OpenModel
from napari_medvar.session.opened_model import Model, open_bundle, open_served

PLUGIN = "napari-medvar"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `napari.yaml` offers as configurations; the defaults are the same."""

    device: str = "auto"  # or cpu, cuda
    bundle: str = ""  # name or folder of the bundle to begin with; "" is the first shipped one
    show_previews: bool = True  # while a picture is made
    autosave: bool = True
    autosave_folder: str = ""  # "" is the user's state folder
    server: str = ""  # address of a `medvar serve` that makes the pictures; "" is this computer
    token_file: str = ""  # whose first line is the server's token

    @property
    def sessions(self) -> Path | None:
        """Where the autosave writes and finds; None is its own choice."""
        return Path(self.autosave_folder).expanduser() if self.autosave_folder else None

    @property
    def connection(self) -> Server | None:
        """To the server. Raises `MedvarError` for an address or a file that cannot be."""
        if not self.server:
            return None
        return Server(self.server, read_token(Path(self.token_file).expanduser()) if self.token_file else None)


def read_settings() -> Settings:
    """As they are now."""
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
    """Keep where models run for the next start of napari; nothing is kept where there is no napari."""
    try:
        from napari.settings import get_plugin_settings

        making = get_plugin_settings(PLUGIN).making
    except (ImportError, KeyError):
        return
    making.device, making.server, making.token_file = settings.device, settings.server, settings.token_file


def opener(settings: Settings) -> OpenModel:
    """How a session opens models as the settings say."""
    return partial(_open, settings) if settings.server else partial(open_bundle, device=settings.device)


def new_session(settings: Settings) -> GenerationSession:
    """A session as the settings say."""
    return GenerationSession(
        opener(settings),
        autosave=Autosave(settings.sessions) if settings.autosave else None,
        show_previews=settings.show_previews,
    )


def _open(settings: Settings, name: str | Path | None, model: str | None = None) -> Model:
    """The server's model, in place of those that ship; but a folder, or what is known by its model, is here."""
    server = None if isinstance(name, Path) or model else settings.connection
    return open_bundle(name, model, device=settings.device) if server is None else open_served(server)
