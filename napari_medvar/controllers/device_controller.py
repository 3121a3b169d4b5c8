"""`DeviceController`: stores where models run in napari's settings, and opens the model there."""

from __future__ import annotations

from dataclasses import replace

from medvar_engine.bundle.read import Bundle
from napari_medvar.controllers.shared_state import State, Workspace
from napari_medvar.panels.device_panel import DevicePanel
from napari_medvar.session.opened_bundle import OpenedBundle
from napari_medvar.settings import Settings, opener, write_settings


class DeviceController:
    """Connects the panel of device and server to the session."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._workspace, self._settings = workspace, settings
        self._wanted = False  # whether the model is being opened at the user's request
        self.panel = DevicePanel()
        self.panel.show_settings(settings.device, settings.server, settings.token_file)
        self.panel.connect_to.connect(self.connect)

    def connect(self) -> None:
        """Open the model with the panel's settings, and store them for the next start of napari."""
        panel = self.panel
        self._settings = replace(self._settings, device=panel.device, server=panel.server, token_file=panel.token_file)
        write_settings(self._settings)
        self._workspace.session.open_bundle = opener(self._settings)
        panel.show_state(f"Connecting to {panel.server}…" if panel.server else "Opening the model…")
        self._workspace.reopen()

    def offer(self, bundle: Bundle) -> None:
        """Adapt the panel to another model."""

    def take(self, result: object) -> None:
        """Handle a result of the worker."""
        if isinstance(result, OpenedBundle):
            self.panel.show_state(f"{result.bundle.name} runs on {result.generator.backend.info.runs_on}.")

    def give_up(self, message: str) -> None:
        """Show that the model could not be opened."""
        self.panel.show_state(f"Not connected: {message}" if self.panel.server else f"Not opened: {message}")

    def refresh(self, state: State) -> None:
        """Update which controls are enabled."""
        self.panel.allow(idle=not self._workspace.busy)
