"""`DevicePanel`: where models run, on this computer's CPU or GPU or on a server."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QLineEdit, QWidget

from napari_medvar.panels.form_rows import (
    add_row,
    button,
    plain_column,
    plain_form,
    selectable,
    small_text,
    without_wheel,
)

_DEVICES = {
    "auto": ("GPU if there is one", "Use the GPU if possible, otherwise the CPU."),
    "cpu": ("CPU", "Always use the processor (CPU)."),
    "cuda": ("GPU", "Always use an NVIDIA GPU. If that is not possible, a message gives the reason."),
}
_SERVER_TIP = (
    "The address of a computer that runs <code>medvar serve</code>, such as https://gpu.example:8765. If empty, this "
    "computer generates the images."
)
_FILE_TIP = "A file with the server's access token in its first line. You get it from the person who runs the server."


class DevicePanel(QWidget):
    """Fields for device, server and token, and a line that shows what is in use."""

    connect_to = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.device_combo = QComboBox()
        for name, (text, tip) in _DEVICES.items():
            self.device_combo.addItem(text, name)
            self.device_combo.setItemData(self.device_combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.server_edit = QLineEdit()
        self.server_edit.setPlaceholderText("this computer")
        self.token_edit = QLineEdit()
        self.token_edit.setPlaceholderText("none")
        self.token_button = button("File…", "Choose the token file.", self._choose_token)
        self.connect_button = button(
            "Use these",
            "Open the model with these settings. They are stored for the next start of napari.",
            self.connect_to.emit,
        )
        self.server_edit.returnPressed.connect(self.connect_button.click)
        self.state = selectable(small_text(QLabel()))
        fields, token = QWidget(), QWidget()
        row = QHBoxLayout(token)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.token_edit, 1)
        row.addWidget(self.token_button)
        form = plain_form(fields)
        add_row(
            form, "Device", without_wheel(self.device_combo), "The device on which models run when there is no server."
        )
        add_row(form, "Server", self.server_edit, _SERVER_TIP)
        add_row(form, "Token", token, _FILE_TIP)
        self.token_edit.setAccessibleName("Token")
        layout = plain_column(self)
        for widget in (fields, self.connect_button, self.state):
            layout.addWidget(widget)

    @property
    def device(self) -> str:
        """The device: ``auto``, ``cpu`` or ``cuda``."""
        return str(self.device_combo.currentData())

    @property
    def server(self) -> str:
        """The server's address; empty for this computer."""
        return self.server_edit.text().strip()

    @property
    def token_file(self) -> str:
        """The path of the token file; empty when there is none."""
        return self.token_edit.text().strip()

    def show_settings(self, device: str, server: str, token_file: str) -> None:
        """Show the stored settings."""
        self.device_combo.setCurrentIndex(max(0, self.device_combo.findData(device)))
        self.server_edit.setText(server)
        self.token_edit.setText(token_file)

    def show_state(self, text: str) -> None:
        """Show what is in use."""
        self.state.setText(text)

    def allow(self, *, idle: bool) -> None:
        """Update which controls are enabled."""
        self.connect_button.setEnabled(idle)

    def _choose_token(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose the file with the server's token", str(Path.home()))
        if path:
            self.token_edit.setText(path)
