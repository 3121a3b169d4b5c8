"""Images as icons, small in a list and large when the mouse rests on them."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import numpy as np
from qtpy.QtCore import QBuffer, Qt
from qtpy.QtGui import QHelpEvent, QIcon, QImage, QPixmap
from qtpy.QtWidgets import QToolTip, QWidget

from medvar_engine.types import FloatArray
from medvar_engine.value_range import grey_levels

STAR = "★"
_KEPT = 160  # px a side of an icon: enough for a large thumbnail, and hundreds take little memory
_LARGE = 320  # px of an image that is rested on


def pixmap_of(pixels: FloatArray) -> QPixmap:
    """An image ``(H, W)`` or ``(H, W, 3)`` in [-1, 1] at full resolution: sharp on any screen."""
    levels = np.ascontiguousarray(grey_levels(pixels))
    height, width = levels.shape[:2]
    form = QImage.Format.Format_Grayscale8 if levels.ndim == 2 else QImage.Format.Format_RGB888
    image = QImage(levels.tobytes(), width, height, levels.strides[0], form)
    return QPixmap.fromImage(image.copy())  # a copy, for QImage does not keep the bytes alive


def icon_of(pixels: FloatArray) -> QIcon:
    """An image as an icon."""
    pixmap = _scaled(pixmap_of(pixels), _KEPT)  # Qt makes no icon larger than its pixels
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # Qt would tint it
    return icon


def show_large(event: QHelpEvent, beside: QWidget, icon: QIcon, text: str) -> None:
    """Answer the request for a tooltip: the image large, and a line of text below it."""
    QToolTip.showText(event.globalPos(), _large(icon, text), beside)


def _large(icon: QIcon, text: str) -> str:
    sizes = icon.availableSizes()
    if not sizes:
        return f"<p>{text}</p>"
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    _scaled(icon.pixmap(sizes[0], 1.0), _LARGE).save(buffer, "PNG")
    data = base64.b64encode(bytes(buffer.data().data())).decode()
    return f'<img width="{_LARGE}" src="data:image/png;base64,{data}"><p>{text}</p>'


def _scaled(pixmap: QPixmap, side: int) -> QPixmap:
    return pixmap.scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation)


class Icons:
    """The icons of a session's images, by their ids. The panels that list images share them."""

    def __init__(self) -> None:
        self._icons: dict[int, QIcon] = {}

    def put(self, image: int, pixels: FloatArray) -> None:
        """What an image looks like now."""
        self._icons[image] = icon_of(pixels)

    def get(self, image: int) -> QIcon:
        """An image's icon; an empty one while it is not known."""
        return self._icons.get(image, QIcon())

    def missing(self, images: Iterable[int]) -> list[int]:
        """Those of which none is known, such as the images of a file."""
        return [image for image in images if image not in self._icons]

    def keep(self, images: Iterable[int]) -> None:
        """Forget all others."""
        here = set(images)
        self._icons = {image: icon for image, icon in self._icons.items() if image in here}

    def clear(self) -> None:
        """Forget all: another model's images come."""
        self._icons.clear()
