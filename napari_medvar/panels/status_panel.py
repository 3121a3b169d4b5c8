"""What is going on, and what it runs on."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from medvar_engine.backends.base import BackendInfo
from napari_medvar.panels.form_rows import question_mark, quiet

_NOTICE = "Synthetic images, for research. Not for diagnosis."


class StatusPanel(QWidget):
    """A progress bar, and a line on the device in use."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.device = quiet(QLabel())
        self.help_button = question_mark("Keys, version, licence, and the model's card (?).", lambda: None)
        self.help_button.setAccessibleName("Help")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.progress)
        layout.addWidget(self.device)
        row = QHBoxLayout()
        row.addWidget(quiet(QLabel(_NOTICE)), 1)
        row.addWidget(self.help_button)
        layout.addLayout(row)
        self.show_progress(0, 0, "")
        self.progress.hide()  # until there is something to show

    def show_busy(self, text: str) -> None:
        """Something whose end is not known, e.g. loading."""
        self.progress.show()
        self.progress.setRange(0, 0)
        self.device.setText(text)

    def end_busy(self) -> None:
        """It has ended."""
        if self.progress.maximum() == 0:
            self.show_progress(0, 0, "")

    def show_progress(self, made: int, scales: int, text: str) -> None:
        """``made`` of ``scales``."""
        self.progress.setVisible(bool(text))
        self.progress.setUpdatesEnabled(False)  # Qt would paint the whole window at once, canvas and all
        self.progress.setRange(0, max(1, scales))
        self.progress.setValue(made)
        self.progress.setFormat(text)
        self.progress.setUpdatesEnabled(True)

    def show_device(self, info: BackendInfo | None) -> None:
        """What the model truly runs on."""
        if info is None:
            self.device.setText("No model is loaded.")
            return
        self.device.setText(f"Runs on {info.provider.replace('ExecutionProvider', '')}, {info.precision}")
        self.device.setToolTip(f"<p>{info.provider}</p><p>Model {info.bundle_id[:12]}</p>")
