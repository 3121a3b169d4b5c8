"""Icons of images: thumbnails for lists, and enlarged images for tooltips."""

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
_KEPT = 160  # px per side of an icon: enough for a large thumbnail, while hundreds of them take little memory
_LARGE = 320  # px per side of the enlarged image


def pixmap_of(pixels: FloatArray) -> QPixmap:
    """An image ``(H, W)`` or ``(H, W, 3)`` in [-1, 1] as a pixmap of full resolution."""
    levels = np.ascontiguousarray(grey_levels(pixels))
    height, width = levels.shape[:2]
    form = QImage.Format.Format_Grayscale8 if levels.ndim == 2 else QImage.Format.Format_RGB888
    image = QImage(levels.tobytes(), width, height, levels.strides[0], form)
    return QPixmap.fromImage(image.copy())  # a copy, because QImage does not keep the bytes alive


def icon_of(pixels: FloatArray) -> QIcon:
    """An image ``(H, W)`` or ``(H, W, 3)`` in [-1, 1] as an icon."""
    pixmap = _scaled(pixmap_of(pixels), _KEPT)  # Qt never enlarges an icon
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # otherwise Qt tints the icon of a selected image
    return icon


def show_large(event: QHelpEvent, beside: QWidget, icon: QIcon, text: str) -> None:
    """Show a tooltip beside a widget: the enlarged image with a line of text below it."""
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
    """The icons of a session's images by their ids, shared by the panels that list images."""

    def __init__(self) -> None:
        self._icons: dict[int, QIcon] = {}

    def put(self, image: int, pixels: FloatArray) -> None:
        """Set the icon of an image from its pixels ``(H, W)`` or ``(H, W, 3)`` in [-1, 1]."""
        self._icons[image] = icon_of(pixels)

    def get(self, image: int) -> QIcon:
        """The icon of an image; an empty icon if there is none yet."""
        return self._icons.get(image, QIcon())

    def missing(self, images: Iterable[int]) -> list[int]:
        """The images that have no icon yet, such as those just read from a file."""
        return [image for image in images if image not in self._icons]

    def keep(self, images: Iterable[int]) -> None:
        """Delete the icons of all other images."""
        here = set(images)
        self._icons = {image: icon for image, icon in self._icons.items() if image in here}

    def clear(self) -> None:
        """Delete all icons, because the images of another model follow."""
        self._icons.clear()
