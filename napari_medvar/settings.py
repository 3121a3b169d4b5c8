"""The plugin's settings, which napari keeps and shows under Preferences; the defaults where there is no napari."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from napari_medvar.autosave import Autosave
from napari_medvar.model import open_bundle
from napari_medvar.session import GenerationSession

PLUGIN = "napari-medvar"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `napari.yaml` offers as configurations; the defaults are the same."""

    device: str = "auto"  # or cpu, cuda
    bundle: str = ""  # name or folder of the bundle to begin with; "" is the first shipped one
    show_previews: bool = True  # while a picture is made
    autosave: bool = True
    autosave_folder: str = ""  # "" is the user's state folder

    @property
    def sessions(self) -> Path | None:
        """Where the autosave writes and finds; None is its own choice."""
        return Path(self.autosave_folder).expanduser() if self.autosave_folder else None


def read_settings() -> Settings:
    """As they are now."""
    try:
        from napari.settings import get_plugin_settings

        values = get_plugin_settings(PLUGIN)
    except (ImportError, KeyError):  # no napari, or the plugin is not registered in it
        return Settings()
    making, keeping = values.making, values.keeping
    return Settings(
        making.device, making.bundle.strip(), making.show_previews, keeping.autosave, keeping.autosave_folder.strip()
    )


def new_session(settings: Settings) -> GenerationSession:
    """A session as the settings say."""
    return GenerationSession(
        partial(open_bundle, device=settings.device),
        autosave=Autosave(settings.sessions) if settings.autosave else None,
        show_previews=settings.show_previews,
    )
