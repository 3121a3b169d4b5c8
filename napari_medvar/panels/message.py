"""What went wrong, and what to do about it."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_medvar.panels.common import button, quiet, selectable


class MessagePanel(QFrame):
    """A coloured box, seen only while it has something to say."""

    retry = Signal()
    open_bundle = Signal()
    accepted = Signal()  # what was offered
    declined = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("medvarMessage")
        self.setStyleSheet("#medvarMessage { border-left: 3px solid #e0a030; background: rgba(224, 160, 48, 40); }")
        self.text = selectable(quiet(QLabel()))
        self.text.setTextFormat(Qt.TextFormat.PlainText)  # paths and file contents are not markup
        self.retry_button = QPushButton("Try again")
        self.retry_button.setToolTip("<p>Load the same model again, once you have done what is said here.</p>")
        self.retry_button.clicked.connect(lambda: self.retry.emit())
        self.open_button = QPushButton("Open a bundle…")
        self.open_button.setToolTip("<p>Use another model: choose the folder with <code>bundle.json</code>.</p>")
        self.open_button.clicked.connect(lambda: self.open_bundle.emit())
        self.accept_button = button("", "", self.accepted.emit)
        self.decline_button = button("No, thanks", "", self.declined.emit)
        self.buttons, self.answers = QWidget(), QWidget()
        answers = QHBoxLayout(self.answers)
        answers.setContentsMargins(0, 0, 0, 0)
        answers.addWidget(self.accept_button)
        answers.addWidget(self.decline_button)
        row = QHBoxLayout(self.buttons)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.retry_button)
        row.addWidget(self.open_button)
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addWidget(self.buttons)
        layout.addWidget(self.answers)
        self.clear()

    def show_error(self, text: str, *, loading: bool) -> None:
        """Say what is wrong; when ``loading`` a model failed, offer the two ways on."""
        self.text.setText(text)
        self.buttons.setVisible(loading)
        self.answers.hide()
        self.show()

    def show_offer(self, text: str, accept: str, accept_tip: str, decline_tip: str) -> None:
        """Ask something that can wait."""
        self.text.setText(text)
        self.accept_button.setText(accept)
        self.accept_button.setToolTip(f"<p>{accept_tip}</p>")
        self.decline_button.setToolTip(f"<p>{decline_tip}</p>")
        self.buttons.hide()
        self.answers.show()
        self.show()

    def clear(self) -> None:
        """Nothing is wrong."""
        self.hide()
