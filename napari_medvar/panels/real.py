"""A real image, as the model sees it."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QWidget

from napari_medvar.panels.common import button, plain_column, quiet

_ABOUT = (
    "Select an image layer, go to a slice, set its contrast, and say above what it shows. It becomes a picture like "
    "any other, lying over the original: play its scales, resample it, see what surprises the model."
)


class RealImagePanel(QWidget):
    """Encode the active layer; look for what the model did not expect."""

    encode = Signal()
    anomaly = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.encode_button = button(
            "&Encode the active layer",
            "Turn the slice that is seen into tokens and back. What lies outside the contrast limits is clipped.",
            self.encode.emit,
        )
        self.anomaly_button = button(
            "&Anomaly map",
            "Colour where the current picture differs from what the model expects for its condition. Research only: "
            "bright does not mean ill.",
            self.anomaly.emit,
        )
        self.result = quiet(QLabel())
        layout = plain_column(self)
        for widget in (quiet(QLabel(_ABOUT)), self.encode_button, self.anomaly_button, self.result):
            layout.addWidget(widget)
        self.result.hide()

    def report(self, text: str) -> None:
        """What came of it."""
        self.result.setText(text)
        self.result.show()

    def allow(self, *, idle: bool, complete: bool) -> None:
        """Enable what can be done now."""
        self.encode_button.setEnabled(idle)
        self.anomaly_button.setEnabled(idle and complete)
