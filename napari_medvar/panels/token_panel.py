"""One token of the picture, and what others would look like in its place."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QWidget

from medvar_engine.types import FloatArray
from napari_medvar.panels.form_rows import button, plain_column, quiet
from napari_medvar.panels.icons import icon_of
from napari_medvar.panels.thumbnails import Thumbnails


class TokenPanel(QWidget):
    """Seen only while a token is being picked."""

    chosen = Signal(int)  # the token

    def __init__(self) -> None:
        super().__init__()
        self._tokens: tuple[int, ...] = ()
        self.title = quiet(QLabel())
        self.pictures = Thumbnails()
        self.pictures.setAccessibleName("Other tokens")
        self.pictures.setToolTip(
            "<p>The image with another token in this place; the first is the one that is there.</p>"
        )
        self.pictures.picked.connect(lambda row: self.chosen.emit(self._tokens[row]))
        self.use_button = button(
            "Use the selected token",
            "Put it in, and draw the finer scales again: a new image.",
            lambda: self.chosen.emit(self._tokens[self.pictures.currentRow()]),
        )
        layout = plain_column(self)
        for widget in (self.title, self.pictures, self.use_button):
            layout.addWidget(widget)
        self.ask()

    @property
    def tokens(self) -> tuple[int, ...]:
        """Those offered."""
        return self._tokens

    def ask(self) -> None:
        """Nothing is picked yet."""
        self._tokens = ()
        self.title.setText("Click on a place in the image.")
        self.pictures.hide()
        self.use_button.hide()

    def show_tokens(
        self, title: str, tokens: Sequence[int], near: Sequence[FloatArray], whole: Sequence[FloatArray]
    ) -> None:
        """The token that is there first, then others by falling likeness; resting on one shows it ``whole``."""
        self._tokens = tuple(map(int, tokens))
        self.title.setText(f"{title}. Cut to where they differ; rest on one to see all of it.")
        captions = [f"now · {tokens[0]}", *map(str, tokens[1:])]
        tips = [f"Token {token}: press Enter or double-click to put it in." for token in self._tokens]
        self.pictures.show_icons([*map(icon_of, near)], captions, tips, [*map(icon_of, whole)])
        self.pictures.show()
        self.use_button.show()
