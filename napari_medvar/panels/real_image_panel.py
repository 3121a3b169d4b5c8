"""`RealImagePanel`: opens a real scan and encodes one of its slices with the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QWidget

from napari_medvar.panels.form_rows import add_row, button, fill, plain_column, plain_form, small_text, without_wheel

if TYPE_CHECKING:
    from napari.layers import Layer

_ABOUT = (
    "Go to a slice of an image, set its contrast, and choose above what it shows. The encoded slice becomes an "
    "image of "
    "the session and lies over the original: play its scales, resample it, or see what the model finds unlikely."
)
_IMAGE_TIP = "The image layer to encode: the one selected in the layer list, unless you choose another one here."
_FILES = (
    "Scans (*.dcm *.dicom *.ima *.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.zip *.tar *.tar.gz *.tgz);;"
    "All files, such as DICOM files without a suffix (*)"
)


class RealImagePanel(QWidget):
    """Buttons to open a scan, to encode the slice of a chosen image, and to show the anomaly map."""

    open_scan = Signal(object)  # Path
    encode = Signal()
    anomaly = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._by_hand = False  # whether the user chose the image here
        self.image_combo = QComboBox()
        self.image_combo.setPlaceholderText("no image is open")
        self.image_combo.activated.connect(lambda: self._choose())
        self.open_button = button(
            "Open a scan…",
            "Open your own CT or MR scan: a DICOM, NIfTI, NRRD or MetaImage file. The scan's folder is not changed.",
            self._open_file,
        )
        self.folder_button = button(
            "Open a folder…", "Open the DICOM scans in a folder, each as a layer.", self._open_folder
        )
        self.encode_button = button(
            "&Encode the slice",
            "Encode the visible slice as tokens and decode it. Values outside the contrast limits are clipped.",
            self.encode.emit,
        )
        self.anomaly_button = button(
            "&Anomaly map",
            "Show in colour where the current image differs from what the model expects for its condition. For "
            "research only: bright does not mean pathology.",
            self.anomaly.emit,
        )
        self.result = small_text(QLabel())
        fields = QWidget()
        add_row(plain_form(fields), "Image", without_wheel(self.image_combo), _IMAGE_TIP)
        opening = QHBoxLayout()
        opening.addWidget(self.open_button)
        opening.addWidget(self.folder_button)
        layout = plain_column(self)
        layout.addWidget(small_text(QLabel(_ABOUT)))
        layout.addLayout(opening)
        for widget in (fields, self.encode_button, self.anomaly_button, self.result):
            layout.addWidget(widget)
        self.result.hide()

    @property
    def image(self) -> Layer | None:
        """The chosen layer; None when there is none."""
        return self.image_combo.currentData()  # type: ignore[no-any-return]

    def offer_images(self, layers: Sequence[Layer], active: Layer | None) -> None:
        """Offer the image layers. A layer that the user chose stays chosen; otherwise the ``active`` one is."""
        before = self.image
        fill(self.image_combo, [(layer.name, layer) for layer in layers])
        self._by_hand = self._by_hand and before in layers
        wanted = before if self._by_hand or active not in layers else active
        self.image_combo.setCurrentIndex(layers.index(wanted) if wanted in layers else len(layers) - 1)

    def report(self, text: str) -> None:
        """Show the result."""
        self.result.setText(text)
        self.result.show()

    def allow(self, *, idle: bool, complete: bool) -> None:
        """Update which controls are enabled."""
        self.open_button.setEnabled(idle)
        self.folder_button.setEnabled(idle)
        self.encode_button.setEnabled(idle)
        self.anomaly_button.setEnabled(idle and complete)

    def _choose(self) -> None:
        self._by_hand = True

    def _open_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", "", _FILES)
        if path:
            self.open_scan.emit(Path(path))

    def _open_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a folder of DICOM scans")
        if folder:
            self.open_scan.emit(Path(folder))
