"""A real image, as the model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QWidget

from napari_medvar.panels.form_rows import add_row, button, calm, fill, plain_column, plain_form, quiet

_ABOUT = (
    "Go to a slice of an image, set its contrast, and say above what it shows. It becomes an image like any other, "
    "lying over the original: play its scales, resample it, see what surprises the model."
)
_IMAGE_TIP = "The image layer that is encoded: the one selected in the layer list, until you choose another here."
_FILES = (
    "Scans (*.dcm *.dicom *.ima *.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.zip *.tar *.tar.gz *.tgz);;"
    "All files, such as DICOM without an ending (*)"
)


class RealImagePanel(QWidget):
    """Open a scan, choose the image, encode its slice; look for what the model did not expect."""

    open_scan = Signal(object)  # Path
    encode = Signal()
    anomaly = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._by_hand = False  # whether the image was chosen here
        self.image_combo = QComboBox()
        self.image_combo.setPlaceholderText("none is open")
        self.image_combo.activated.connect(self._chosen)
        self.open_button = button(
            "Open a scan…",
            "A CT or MR scan of your own: a DICOM file, NIfTI, NRRD or MetaImage. Nothing is written beside it.",
            self._open_file,
        )
        self.folder_button = button("Folder…", "The DICOM scans in a folder, each as a layer.", self._open_folder)
        self.encode_button = button(
            "&Encode the slice",
            "Turn the slice that is seen into tokens and back. What lies outside the contrast limits is clipped.",
            self.encode.emit,
        )
        self.anomaly_button = button(
            "&Anomaly map",
            "Colour where the current image differs from what the model expects for its condition. Research only: "
            "bright does not mean ill.",
            self.anomaly.emit,
        )
        self.result = quiet(QLabel())
        fields = QWidget()
        add_row(plain_form(fields), "Image", calm(self.image_combo), _IMAGE_TIP)
        opening = QHBoxLayout()
        opening.addWidget(self.open_button)
        opening.addWidget(self.folder_button)
        layout = plain_column(self)
        layout.addWidget(quiet(QLabel(_ABOUT)))
        layout.addLayout(opening)
        for widget in (fields, self.encode_button, self.anomaly_button, self.result):
            layout.addWidget(widget)
        self.result.hide()

    @property
    def image(self) -> str | None:
        """The name of the chosen layer."""
        return self.image_combo.currentData()  # type: ignore[no-any-return]

    def offer_images(self, names: Sequence[str], active: str | None) -> None:
        """The image layers there are; the one chosen by hand stays chosen, or else it is the ``active`` one."""
        chosen = self.image
        fill(self.image_combo, [(name, name) for name in names])
        self._by_hand = self._by_hand and chosen in names
        wanted = chosen if self._by_hand or active not in names else active
        self.image_combo.setCurrentIndex(self.image_combo.findData(wanted) if wanted in names else len(names) - 1)

    def report(self, text: str) -> None:
        """What came of it."""
        self.result.setText(text)
        self.result.show()

    def allow(self, *, idle: bool, complete: bool) -> None:
        """Enable what can be done now."""
        self.open_button.setEnabled(idle)
        self.folder_button.setEnabled(idle)
        self.encode_button.setEnabled(idle)
        self.anomaly_button.setEnabled(idle and complete)

    def _chosen(self) -> None:
        self._by_hand = True

    def _open_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", "", _FILES)
        if path:
            self.open_scan.emit(Path(path))

    def _open_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "The folder of DICOM scans")
        if folder:
            self.open_scan.emit(Path(folder))
