"""`TokenPanel`: one token of the image, and previews with other tokens in its place."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QWidget

from medvar_engine.types import FloatArray
from napari_medvar.panels.form_rows import button, plain_column, small_text
from napari_medvar.panels.icons import icon_of
from napari_medvar.panels.thumbnails import Thumbnails


class TokenPanel(QWidget):
    """Previews of the image with other tokens. Visible only while a token is being picked."""

    chosen = Signal(int)  # the chosen token

    def __init__(self) -> None:
        super().__init__()
        self._tokens: tuple[int, ...] = ()
        self.title = small_text(QLabel())
        self.thumbnails = Thumbnails()
        self.thumbnails.setAccessibleName("Other tokens")
        self.thumbnails.setToolTip("<p>The image with other tokens in this place. The first has the present token.</p>")
        self.thumbnails.picked.connect(lambda row: self.chosen.emit(self._tokens[row]))
        self.use_button = button(
            "Use the selected token",
            "Insert the token and draw the finer scales again, as a new image.",
            lambda: self.chosen.emit(self._tokens[self.thumbnails.currentRow()]),
        )
        layout = plain_column(self)
        for widget in (self.title, self.thumbnails, self.use_button):
            layout.addWidget(widget)
        self.ask()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that are offered."""
        return self._tokens

    def ask(self) -> None:
        """Ask the user to pick a place in the image."""
        self._tokens = ()
        self.title.setText("Click on a place in the image.")
        self.thumbnails.hide()
        self.use_button.hide()

    def show_tokens(
        self, title: str, tokens: Sequence[int], near: Sequence[FloatArray], whole: Sequence[FloatArray]
    ) -> None:
        """Show the present token first, then others in order of similarity.

        Thumbnails are the close-ups ``near``; the mouse resting on one shows the image ``whole``.
        """
        self._tokens = tuple(map(int, tokens))
        self.title.setText(
            f"{title}. The previews show where they differ; rest the mouse on one to see the whole image."
        )
        captions = [f"now · {tokens[0]}", *map(str, tokens[1:])]
        tips = [f"Token {token}: press Enter or double-click to use it." for token in self._tokens]
        self.thumbnails.show_icons([*map(icon_of, near)], captions, tips, [*map(icon_of, whole)])
        self.thumbnails.show()
        self.use_button.show()
