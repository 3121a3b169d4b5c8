"""Makes the screenshots of the plugin in ``docs/images`` and in its guide: the real widget, on the shipped model.

    xvfb-run -a -s "-screen 0 1600x1100x24" python docs/screenshots.py

needs a display with OpenGL, or ``xvfb-run``. The tests play the same scenes in other themes and widths.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from PIL import Image
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QWidget

from medvar_engine.conditions import Condition
from napari_medvar import guide, work_report
from napari_medvar.panels.help_dialog import HelpDialog
from napari_medvar.sample_data import real_brain
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.widget import MedvarWidget

IMAGES = Path(__file__).parent / "images"
SIZE = (920, 860)  # px of the window without the dock
DOCK = 360  # px
COLOURS = 192  # a palette keeps the files small, and is not seen
GUIDE = 440, 96  # px wide, and colours, of a screenshot in the guide
CHEST, BRAIN = Condition("CT", "chest", "axial"), Condition("MR", "brain", "axial")


class Studio:
    """One window, and what is done to it."""

    def __init__(
        self,
        folder: Path,
        seed: int = 9,
        *,
        viewer: Any = None,
        dock: int = DOCK,
        seen: Callable[[QWidget], object] = lambda widget: None,
    ) -> None:
        """``seen`` is called before every screenshot with the part of the window that it shows."""
        self.folder, self.seed, self._seen = folder, seed, seen
        self.viewer = viewer or napari.Viewer()
        self.widget = MedvarWidget(self.viewer, GenerationSession())
        self.dock = self.viewer.window.add_dock_widget(self.widget, name="MedVAR Generate")
        self.viewer.window.resize(SIZE[0] + dock, SIZE[1])
        self.settle()
        self.dock.setFixedWidth(dock)
        self.widget.sampling.fresh_box.setChecked(False)

    def settle(self) -> None:
        """Until the widget has nothing to do, and everything is drawn."""
        idle = 0
        while idle < 20:
            QApplication.processEvents()
            time.sleep(0.01)
            idle = 0 if self.widget.busy else idle + 1
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)  # as Qt's own loop does
        QApplication.processEvents()

    def make(self, condition: Condition, seed: int, count: int = 1) -> None:
        """An image, or several."""
        self.widget.condition.show_condition(condition)
        self.widget.sampling.show_seed(seed)
        self.widget.sampling.count_box.setValue(count)
        self.widget.scales.generate_button.click()
        self.settle()

    def view(self, name: Any) -> None:
        """Another view of the image."""
        self.widget.views.show_view(name)
        self.settle()

    def open_fold(self, name: str | None) -> None:
        """One section alone, in sight."""
        for each, fold in {"sampling": self.widget.sampling.fold, **self.widget.folds}.items():
            if each == name:
                fold.expand()
            else:
                fold.collapse()
        self.settle()
        bar = self.widget.area.verticalScrollBar()
        bar.setValue(0 if name in (None, "sampling") else min(bar.maximum(), self.widget.folds[name].y() - 12))
        self.settle()

    def shoot(self, name: str) -> None:
        """The whole window, without the progress of the last work, which tells only how fast this machine is."""
        self.settle()
        self.widget.status.show_progress(0, 0, "")
        self._seen(self.widget)
        self._write(name, self.viewer.screenshot(canvas_only=False, flash=False))

    def shoot_window(self, name: str, window: QWidget) -> None:
        """Another window."""
        window.show()
        self.settle()
        self._seen(window)
        path = self.folder / f"{name}.png"
        window.grab().save(str(path))
        window.close()
        self.settle()
        print(path.name)

    def _write(self, name: str, pixels: np.ndarray) -> None:
        image = Image.fromarray(pixels).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        path = self.folder / f"{name}.png"
        image.save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, {image.width}×{image.height}")


def started(studio: Studio) -> None:
    """Before the first image."""
    studio.open_fold(None)
    studio.shoot("plugin-start")


def grown(studio: Studio) -> None:
    """An image as it is after Generate."""
    studio.make(CHEST, studio.seed)
    studio.shoot("plugin")
    studio.widget.scales.slider.setValue(3)
    studio.shoot("plugin-generate")
    studio.widget.scales.slider.setValue(len(studio.widget.edit.panel.lock_buttons) - 1)


def views(studio: Studio) -> None:
    """All scales, and maps."""
    for view in ("difference", "tokens", "entropy", "likelihood"):
        studio.view(view)
        studio.shoot(f"plugin-view-{view}")
    studio.view("scales")
    studio.shoot("plugin-view")
    studio.view("image")


def mask(studio: Studio) -> None:
    """A painted mask, before and after resampling inside it."""
    panel, finest = studio.widget.edit.panel, len(studio.widget.edit.panel.lock_buttons) - 1
    studio.open_fold("edit")
    studio.widget.scales.slider.setValue(3)
    panel.paint_button.click()
    layer = studio.viewer.layers["mask"]
    size = layer.data.shape[0]
    y, x = np.ogrid[:size, :size]
    ellipse = ((y - size * 0.5) / (size * 0.16)) ** 2 + ((x - size * 0.29) / (size * 0.12)) ** 2 < 1
    layer.data = ellipse.astype(np.uint8)
    panel.outside_combo.setCurrentIndex(1)
    studio.widget.image_view.layers.show_only(finest)
    studio.shoot("plugin-edit")
    panel.resample_button.click()
    studio.settle()
    studio.shoot("plugin-edited")
    panel.choose_mask(None)
    studio.viewer.layers.remove("mask")
    studio.settle()


def tokens(studio: Studio) -> None:
    """What other tokens would look like in one place."""
    panel = studio.widget.edit.panel
    panel.from_box.setValue(5)
    panel.pick_button.click()
    studio.widget.edit.pick(4, 3)
    studio.settle()
    studio.widget.area.ensureWidgetVisible(studio.widget.edit.tokens.use_button)
    studio.shoot("plugin-tokens")
    panel.pick_button.click()
    panel.follow_box.setChecked(True)


def candidates(studio: Studio) -> None:
    """A contact sheet."""
    studio.viewer.layers.selection.active = studio.widget.image_view.layers.all()[-1]
    studio.widget.scales.slider.setValue(2)
    studio.widget.candidates.panel.count_box.setValue(9)
    studio.widget.sampling.show_seed(studio.seed + 1)
    studio.widget.candidates.panel.draw_button.click()
    studio.settle()
    studio.open_fold("candidates")
    studio.shoot("plugin-candidates")
    studio.widget.candidates.panel.pick_button.click()
    studio.settle()


def compare(studio: Studio) -> None:
    """Two images side by side, out of the history."""
    studio.make(BRAIN, studio.seed)
    studio.open_fold("edit")
    studio.widget.area.ensureWidgetVisible(studio.widget.edit.panel.graft_button)
    studio.shoot("plugin-mix")  # with a warning
    nodes, history = studio.widget.session.tree.nodes, studio.widget.history
    history.rename(nodes[0].id, "chest, the first")
    history.rename(nodes[1].id, "right lung drawn again")
    studio.open_fold("history")
    history.panel.compare_button.blockSignals(True)
    history.panel.compare_button.setChecked(True)
    history.panel.compare_button.blockSignals(False)
    history.compare(nodes[0].id, nodes[1].id)
    studio.shoot("plugin-history")
    history.end_compare()
    studio.settle()


def gallery(studio: Studio) -> None:
    """Many images of one condition, some of them starred; in the dock, and in a window of its own."""
    studio.make(BRAIN, studio.seed + 20, count=12)
    nodes, panel = studio.widget.session.tree.nodes, studio.widget.gallery.panel
    studio.widget.gallery.star([node.id for node in nodes[-9::3]], True)
    studio.open_fold("gallery")
    studio.shoot("plugin-gallery")
    panel.show_large()
    assert panel.separate_window is not None
    studio.shoot_window("plugin-gallery-window", panel.separate_window)


def real(studio: Studio) -> None:
    """A real slice, encoded, and a map of what the model did not expect."""
    ((pixels, attributes, _),) = real_brain()
    studio.viewer.add_image(pixels, **attributes)
    studio.open_fold("real")
    studio.widget.real.panel.encode_button.click()
    studio.settle()
    studio.shoot("plugin-real")
    studio.widget.real.panel.anomaly_button.click()
    studio.shoot("plugin-anomaly")
    studio.view("image")
    studio.viewer.layers.remove(attributes["name"])


def other_sections(studio: Studio) -> None:
    """Sampling, Save, Device and server; a message, and the help."""
    for name in ("sampling", "save", "device"):
        studio.open_fold(name)
        studio.shoot(f"plugin-{name}")
    studio.widget.save.panel.dataset_fold.expand()
    studio.open_fold("save")
    studio.shoot("plugin-dataset")
    studio.open_fold(None)
    studio.widget.show_error("None of the chosen images is finished. Finish one, or choose others.")
    studio.shoot("plugin-message")
    studio.widget.message.clear()
    studio.shoot_window("plugin-guide", HelpDialog(studio.widget.session.opened, studio.widget, "edit"))
    studio.shoot_window("plugin-keys", HelpDialog(studio.widget.session.opened, studio.widget))


SCENES: tuple[Callable[[Studio], None], ...] = (
    *(started, grown, views, mask, tokens, candidates),
    *(compare, gallery, real, other_sections),
)


def guide_images(folder: Path) -> None:
    """Smaller ones, of those that its pages name."""
    for name in guide.PAGES:
        if f"({name}.png)" in guide.page(name):
            image = Image.open(folder / f"plugin-{name}.png").convert("RGB")
            image = image.resize((GUIDE[0], round(image.height * GUIDE[0] / image.width)), Image.Resampling.LANCZOS)
            image.quantize(GUIDE[1]).save(guide.FOLDER / f"{name}.png", optimize=True)


def main() -> None:
    """All scenes, one after the other: each continues from the one before. What the pages do not show is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=9)
    arguments = parser.parse_args()
    work_report._LONG = math.inf  # on a slow machine notifications would lie over the images
    studio = Studio(IMAGES, arguments.seed)
    for scene in SCENES:
        scene(studio)
    studio.viewer.close()
    guide_images(IMAGES)
    pages = "".join(page.read_text() for page in IMAGES.parents[1].glob("**/*.md"))
    for path in IMAGES.glob("plugin*.png"):
        if path.name not in pages:
            path.unlink()


if __name__ == "__main__":
    main()
