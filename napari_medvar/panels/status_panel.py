"""`StatusPanel`: the progress of the work and the device in use."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from medvar_engine.backends.base import BackendInfo
from napari_medvar.panels.form_rows import small_button, small_text

_NOTICE = "Synthetic images, for research. Not for diagnosis."


class StatusPanel(QWidget):
    """A progress bar, and a line that names the device in use."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.device = small_text(QLabel())
        self.help_button = small_button("?", "Guide, keys, version, licence and model card (?).", lambda: None)
        self.help_button.setAccessibleName("Help")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.progress)
        layout.addWidget(self.device)
        row = QHBoxLayout()
        row.addWidget(small_text(QLabel(_NOTICE)), 1)
        row.addWidget(self.help_button)
        layout.addLayout(row)
        self.show_progress(0, 0, "")
        self.progress.hide()  # until there is something to show

    def show_busy(self, text: str) -> None:
        """Show work of unknown length, such as loading."""
        self.progress.show()
        self.progress.setRange(0, 0)
        self.device.setText(text)

    def end_busy(self) -> None:
        """Hide the progress of work that has ended."""
        if self.progress.maximum() == 0:
            self.show_progress(0, 0, "")

    def show_progress(self, made: int, scales: int, text: str) -> None:
        """Show that ``made`` of ``scales`` are finished."""
        self.progress.setVisible(bool(text))
        self.progress.setUpdatesEnabled(False)  # otherwise Qt repaints the whole window, canvas included
        self.progress.setRange(0, max(1, scales))
        self.progress.setValue(made)
        self.progress.setFormat(text)
        self.progress.setUpdatesEnabled(True)

    def show_device(self, info: BackendInfo | None) -> None:
        """Show the device that the model really uses; None when no model is loaded."""
        if info is None:
            self.device.setText("No model is loaded.")
            return
        self.device.setText(f"Runs on {info.runs_on}")
        self.device.setToolTip(f"<p>{info.provider}</p><p>Model {info.bundle_id[:12]}</p>")
