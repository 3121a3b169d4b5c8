"""`BundlePanel`: a list of the shipped bundles and the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_medvar.panels.form_rows import add_row, plain_form, without_wheel
from napari_medvar.session.opened_bundle import OpenedBundle

_TIP = "The model that generates the images. To use your own, choose the folder that <code>medvar export</code> wrote."


class BundlePanel(QWidget):
    """A list of bundles. ``chosen`` emits the name of a shipped bundle, or the folder of another one."""

    chosen = Signal(object)  # str | Path

    def __init__(self, shipped: Iterable[str] = ()) -> None:
        super().__init__()
        self.combo = QComboBox()
        self.combo.setPlaceholderText("none")
        for name in shipped:
            self.combo.addItem(name, name)
        self.combo.setCurrentIndex(0 if self.combo.count() else -1)
        self.combo.activated.connect(self._activated)
        self.open_button = QPushButton("Open…")
        self.open_button.setToolTip(
            "<p>Open your own model: choose its folder, which contains <code>bundle.json</code>.</p>"
        )
        self.open_button.clicked.connect(self.open)

        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(without_wheel(self.combo), 1)
        layout.addWidget(self.open_button)
        add_row(plain_form(self), "Model", row, _TIP)

    @property
    def current(self) -> str | Path | None:
        """The name or folder of the chosen bundle."""
        return self.combo.currentData()  # type: ignore[no-any-return]

    def open(self) -> None:
        """Ask the user for the folder of a bundle."""
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder of a MedVAR model")
        if folder:
            self.choose(Path(folder))

    def choose(self, bundle: str | Path) -> None:
        """Choose a shipped bundle by name, or another by folder, as if the user had chosen it."""
        index = self._index(bundle)
        if index < 0:
            self.combo.addItem(Path(bundle).name, bundle)
            index = self.combo.count() - 1
        self.combo.setCurrentIndex(index)
        self.chosen.emit(bundle)

    def select(self, bundle: str | Path | None) -> None:
        """Show which bundle is in use, without emitting ``chosen``."""
        self.combo.setCurrentIndex(self._index(bundle))

    def describe(self, opened: OpenedBundle) -> None:
        """Describe the loaded bundle: its training data and its licence."""
        bundle = opened.bundle
        self.combo.setItemText(self.combo.currentIndex(), bundle.name)
        credit = "".join(f"<p>{line}</p>" for line in bundle.attributions)
        self.combo.setToolTip(f"<p>{_TIP}</p><p>{bundle.training_data}</p><p>Licence: {bundle.licence}</p>{credit}")

    def _index(self, bundle: str | Path | None) -> int:
        """The index of a bundle in the list; -1 if it is not listed. Qt's own `findData` does not compare paths."""
        return next((i for i in range(self.combo.count()) if self.combo.itemData(i) == bundle), -1)

    def _activated(self, index: int) -> None:
        self.chosen.emit(self.combo.itemData(index))
