"""`SavePanel`: writes images, sessions and synthetic datasets, and opens sessions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QFormLayout, QHBoxLayout, QLabel, QSpinBox, QWidget
from superqt import QElidingLabel

from medvar_engine.conditions import Condition
from medvar_engine.memorisation.copy_risk import CopyPolicy
from napari_medvar.panels.form_rows import (
    add_row,
    button,
    fold,
    plain_column,
    plain_form,
    selectable,
    small_text,
    tab_after,
    without_wheel,
)
from napari_medvar.panels.stack_panel import StackPanel

_FORMATS = {
    "png": ("PNG", "8-bit greyscale, for viewing and presentations."),
    "png16": ("PNG, 16 bits", "16-bit greyscale."),
    "nifti": ("NIfTI", "Values in HU or arbitrary units and positions in mm, with a .json file of the provenance."),
    "dicom": ("DICOM", "A CT, MR or Secondary Capture object, marked as synthetic data."),
}
_WHAT = {
    "current": "this image",
    "selected": "images selected in the history",
    "starred": "images starred in the gallery",
    "all": "all",
}
_COPIES: dict[CopyPolicy, tuple[str, str]] = {
    "withhold": ("Withhold", "Images that may be copies are not written."),
    "flag": ("Flag", "Images that may be copies are written, and each file says so."),
    "off": ("Do not check", "Images are written without a check for copies."),
}
_SESSION = "MedVAR session (*.medvar)"
_READABLE = "MedVAR session or image (*.medvar *.png *.nii *.nii.gz)"


class SavePanel(QWidget):
    """Controls to save images, to save and open sessions, and to generate a synthetic dataset."""

    save = Signal()
    save_session = Signal(object)  # Path
    open_session = Signal(object)  # Path
    generate_set = Signal()

    def __init__(self, formats: Iterable[str]) -> None:
        super().__init__()
        self._folder = Path.home()
        self.what_combo = QComboBox()
        for data, text in _WHAT.items():
            self.what_combo.addItem(text, data)
        self.format_combo = QComboBox()
        for name in formats:
            text, tip = _FORMATS[name]
            self.format_combo.addItem(text, name)
            self.format_combo.setItemData(self.format_combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.copies_combo = QComboBox()
        for policy, (text, tip) in _COPIES.items():
            self.copies_combo.addItem(text, policy)
            self.copies_combo.setItemData(self.copies_combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.own_source_box = QCheckBox("The real image is mine")
        self.own_source_box.setToolTip(
            "<p>An image made from a real one is withheld when it is close to a training slice, unless you "
            "confirm that "
            "the real image is yours. It is then marked as a reconstruction of a real image, not as synthetic.</p>"
        )
        self.burn_in_box = QCheckBox("Burn in SYNTHETIC")
        self.burn_in_box.setToolTip(
            "<p>Write the word SYNTHETIC into the pixels, in the emptiest part of the image.</p>"
        )
        self.folder_label = QElidingLabel(str(self._folder))
        self.folder_label.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.folder_button = button("Folder…", "Choose the folder that files are written to.", self.ask_folder)
        self.save_button = button(
            "Save images", "Write finished images. Each file is marked as synthetic.", self.save.emit
        )
        self.save_session_button = button(
            "Save session…",
            "Save all images and their history in one .medvar file, to continue another day.",
            self._save_session,
        )
        self.open_session_button = button(
            "Open session…",
            "Open a .medvar file, or a PNG or NIfTI file that MedVAR wrote, with its settings.",
            self._open_session,
        )
        self.counts: dict[Condition, QSpinBox] = {}
        self._counts = QWidget()
        self._count_form = plain_form(self._counts)
        self.set_button = button(
            "Generate the dataset",
            "Generate the number of images set for each slice type, and write each image as soon as it is made.",
            self.generate_set.emit,
        )
        self.report_label = selectable(small_text(QLabel()))  # placed by the widget that shows the panel

        fields = QWidget()
        form = plain_form(fields)
        add_row(form, "What", without_wheel(self.what_combo), "Which images to write.")
        add_row(form, "Format", without_wheel(self.format_combo), "The file format.")
        add_row(
            form,
            "Copies",
            without_wheel(self.copies_combo),
            "What to do with images that may be copies of training slices.",
        )
        self._form = form
        form.addRow(self.own_source_box)
        form.addRow(self.burn_in_box)
        where = QWidget()
        row = QHBoxLayout(where)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.folder_label, 1)
        row.addWidget(self.folder_button)
        add_row(form, "Into", where, "The folder that files are written to.")
        sessions = QHBoxLayout()
        sessions.addWidget(self.save_session_button)
        sessions.addWidget(self.open_session_button)
        layout = plain_column(self)
        layout.addWidget(fields)
        layout.addWidget(self.save_button)
        layout.addLayout(sessions)
        dataset = QWidget()
        column = plain_column(dataset)
        column.addWidget(small_text(QLabel("Number of images of each slice type:")))
        column.addWidget(self._counts)
        column.addWidget(self.set_button)
        self.dataset_fold = fold(
            "Synthetic dataset", dataset, "Generate many images of several slice types and write them to files."
        )
        layout.addWidget(self.dataset_fold)
        self.stack = StackPanel()
        self.stack_fold = fold("Stack", self.stack, "Generate the slices of one body, as a volume.")
        layout.addWidget(self.stack_fold)
        self.report("")
        self.offer_copies(False)

    @property
    def what(self) -> str:
        """Which images to write: ``current``, ``selected``, ``starred`` or ``all``."""
        return str(self.what_combo.currentData())

    @property
    def format(self) -> str:
        """The name of the file format."""
        return str(self.format_combo.currentData())

    @property
    def copy_policy(self) -> CopyPolicy | None:
        """The copy policy; None when the bundle has no training index."""
        return cast(CopyPolicy, self.copies_combo.currentData()) if self._knows_copies else None

    @property
    def own_source(self) -> bool:
        """Whether the user has confirmed that the real images are their own."""
        return self._knows_copies and self.own_source_box.isChecked()

    @property
    def burned_in(self) -> bool:
        """Whether SYNTHETIC is written into the pixels."""
        return self.burn_in_box.isChecked()

    @property
    def folder(self) -> Path:
        """The folder that files are written to."""
        return self._folder

    @property
    def orders(self) -> list[tuple[Condition, int]]:
        """The conditions of the synthetic dataset and the number of images of each."""
        return [(condition, box.value()) for condition, box in self.counts.items() if box.value()]

    def choose_folder(self, folder: Path) -> None:
        """Set the folder that files are written to."""
        self._folder = folder
        self.folder_label.setText(str(folder))
        self.folder_label.setToolTip(str(folder))

    def choose_what(self, what: str) -> None:
        """Set which images to write; see `what`."""
        self.what_combo.setCurrentIndex(self.what_combo.findData(what))

    def offer_kinds(self, conditions: Iterable[Condition]) -> None:
        """Offer the slice types of a model for a synthetic dataset."""
        while self._count_form.rowCount():
            self._count_form.removeRow(0)
        self.counts = {}
        for condition in conditions:
            box = QSpinBox()
            box.setRange(0, 100_000)
            box.setToolTip(f"<p>Number of “{condition}” images.</p>")
            box.setAccessibleName(str(condition))
            label = QLabel(str(condition))
            label.setBuddy(box)
            self._count_form.setFormAlignment(Qt.AlignmentFlag.AlignLeft)
            self._count_form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
            self._count_form.addRow(label, without_wheel(box))
            self.counts[condition] = box
        tab_after(self.open_session_button, self.counts.values())

    def offer_copies(self, known: bool) -> None:
        """Enable the copy policy if the model has a training index."""
        self._knows_copies = known
        self._form.setRowVisible(self.copies_combo, known)
        self._form.setRowVisible(self.own_source_box, known)

    def report(self, text: str) -> None:
        """Show what was written."""
        self.report_label.setText(text)
        self.report_label.setVisible(bool(text))

    def allow(self, *, idle: bool, complete: bool, some: bool) -> None:
        """Update which controls are enabled."""
        self.save_button.setEnabled(idle and (complete or some))
        self.save_session_button.setEnabled(idle and some)
        self.open_session_button.setEnabled(idle)
        self.set_button.setEnabled(idle and bool(self.counts))
        self.stack.generate_button.setEnabled(idle)

    def ask_folder(self) -> bool:
        """Let the user choose the folder for files. Returns whether one was chosen."""
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder for files", str(self._folder))
        if folder:
            self.choose_folder(Path(folder))
        return bool(folder)

    def _save_session(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save this session", str(self._folder), _SESSION)
        if path:
            self.save_session.emit(Path(path if path.endswith(".medvar") else f"{path}.medvar"))

    def _open_session(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a session or an image", str(self._folder), _READABLE)
        if path:
            self.open_session.emit(Path(path))
