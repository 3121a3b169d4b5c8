"""`MessagePanel`: error messages, and questions that wait for an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_medvar.panels.form_rows import button, selectable, small_text


@dataclass(frozen=True, eq=False, slots=True)
class Question:
    """A question with two answers and their actions."""

    text: str
    accept: str  # texts of the two buttons
    accept_tip: str
    decline: str
    decline_tip: str
    accepted: Callable[[], object]
    declined: Callable[[], object]


class MessagePanel(QFrame):
    """A coloured box that is visible only while it has a message.

    A question stays until it is answered. An error may replace it for a while. The newest question comes first.
    """

    retry = Signal()
    open_bundle = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._offers: list[Question] = []
        self.setObjectName("medvarMessage")
        self.setStyleSheet("#medvarMessage { border-left: 3px solid #e0a030; background: rgba(224, 160, 48, 40); }")
        self.text = selectable(small_text(QLabel()))
        self.text.setTextFormat(Qt.TextFormat.PlainText)  # paths and file contents are not markup
        self.retry_button = QPushButton("Try again")
        self.retry_button.setToolTip(
            "<p>Load the same model again, after you have followed the advice in this message.</p>"
        )
        self.retry_button.clicked.connect(lambda: self.retry.emit())
        self.open_button = QPushButton("Open a model…")
        self.open_button.setToolTip(
            "<p>Open another model: choose its folder, which contains <code>bundle.json</code>.</p>"
        )
        self.open_button.clicked.connect(lambda: self.open_bundle.emit())
        self.accept_button = button("", "", lambda: self._answer(True))
        self.decline_button = button("", "", lambda: self._answer(False))
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
        """Show an error. When ``loading`` a model failed, also offer to try again or to open another model."""
        self.text.setText(text)
        self.buttons.setVisible(loading)
        self.answers.hide()
        self.show()

    def ask(self, offer: Question) -> None:
        """Ask a question that need not be answered at once."""
        self._offers.append(offer)
        self._show_offer(offer)

    def withdraw(self, offer: Question) -> None:
        """Remove a question that need not be answered any more."""
        if offer in self._offers:
            self._offers.remove(offer)
            self.clear()

    def clear(self) -> None:
        """Remove the error. Questions stay."""
        if self._offers:
            self._show_offer(self._offers[-1])
        else:
            self.hide()

    def _show_offer(self, offer: Question) -> None:
        self.text.setText(offer.text)
        for one, text, tip in (
            (self.accept_button, offer.accept, offer.accept_tip),
            (self.decline_button, offer.decline, offer.decline_tip),
        ):
            one.setText(text)
            one.setToolTip(f"<p>{tip}</p>")
        self.buttons.hide()
        self.answers.show()
        self.show()

    def _answer(self, accepted: bool) -> None:
        offer = self._offers.pop()
        self.clear()
        (offer.accepted if accepted else offer.declined)()
