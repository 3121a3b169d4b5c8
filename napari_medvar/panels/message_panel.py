"""`MessagePanel`: error messages, and questions that wait for an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_medvar.panels.form_rows import button, selectable, small_button, small_text


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


_MOST_ERRORS = 5  # shown together; more would leave no space for the sections


class MessagePanel(QFrame):
    """A coloured box that is visible only while it has a message.

    Several errors are shown together, because several files may be opened at once. A question stays until it is
    answered; the newest comes first.
    """

    retry = Signal()
    open_bundle = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[str] = []
        self._loading = False  # whether a model could not be loaded
        self._questions: list[Question] = []
        self.setObjectName("medvarMessage")
        self.setStyleSheet("#medvarMessage { border-left: 3px solid #e0a030; background: rgba(224, 160, 48, 40); }")
        self.text = selectable(small_text(QLabel()))
        self.text.setTextFormat(Qt.TextFormat.PlainText)  # paths and file contents are not markup
        self.close_button = small_button("✕", "Close this message", self.clear)
        self.retry_button = button(
            "Try again",
            "Load the same model again, after you have followed the advice in this message.",
            self.retry.emit,
        )
        self.open_button = button(
            "Open a model…",
            "Open another model: choose its folder, which contains <code>bundle.json</code>.",
            self.open_bundle.emit,
        )
        self.accept_button = button("", "", lambda: self._answer(True))
        self.decline_button = button("", "", lambda: self._answer(False))
        self.buttons, self.answers = QWidget(), QWidget()
        for owner, pair in (
            (self.buttons, (self.retry_button, self.open_button)),
            (self.answers, (self.accept_button, self.decline_button)),
        ):
            row = QHBoxLayout(owner)
            row.setContentsMargins(0, 0, 0, 0)
            for each in pair:
                row.addWidget(each)
        top = QHBoxLayout()
        top.addWidget(self.text, 1)
        top.addWidget(self.close_button, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addWidget(self.buttons)
        layout.addWidget(self.answers)
        self._update()

    def show_error(self, text: str, *, loading: bool = False) -> None:
        """Show an error below those that are shown already.

        When ``loading`` a model failed, also offer to try again or to open another model.
        """
        if text not in self._errors:
            self._errors.append(text)
        self._loading = self._loading or loading
        self._update()

    def ask(self, question: Question) -> None:
        """Ask a question that need not be answered at once."""
        self._questions.append(question)
        self._update()

    def withdraw(self, question: Question) -> None:
        """Remove a question that need not be answered any more."""
        if question in self._questions:
            self._questions.remove(question)
            self._update()

    def clear(self) -> None:
        """Remove all errors. Questions stay."""
        self._errors.clear()
        self._loading = False
        self._update()

    def _update(self) -> None:
        """Show the present errors and the newest question."""
        more = len(self._errors) - _MOST_ERRORS
        texts = self._errors[-_MOST_ERRORS:]
        if more > 0:
            texts = [f"{more} earlier message{'s' * (more > 1)} not shown.", *texts]
        if self._questions:
            question = self._questions[-1]
            texts = [*texts, question.text]
            for each, text, tip in (
                (self.accept_button, question.accept, question.accept_tip),
                (self.decline_button, question.decline, question.decline_tip),
            ):
                each.setText(text)
                each.setToolTip(f"<p>{tip}</p>")
        self.text.setText("\n\n".join(texts))
        self.close_button.setVisible(bool(self._errors))
        self.buttons.setVisible(self._loading)
        self.answers.setVisible(bool(self._questions))
        self.setVisible(bool(texts))

    def _answer(self, accepted: bool) -> None:
        question = self._questions.pop()
        self._update()
        (question.accepted if accepted else question.declined)()
