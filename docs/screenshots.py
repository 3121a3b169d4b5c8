"""Makes the pictures of the plugin in ``docs/images``: the real widget in a real napari, on the shipped model.

    xvfb-run -a -s "-screen 0 1600x1100x24" python docs/screenshots.py

needs a display with OpenGL, or ``xvfb-run``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

from medvar_engine.conditions import Condition
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.widget import MedvarWidget

IMAGES = Path(__file__).parent / "images"
SIZE = (1280, 860)
DOCK = 360  # px
COLOURS = 192  # a palette keeps the files small, and is not seen


class Studio:
    """One window, and what is done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.viewer = napari.Viewer()
        self.widget = MedvarWidget(self.viewer, GenerationSession())
        self.dock = self.viewer.window.add_dock_widget(self.widget, name="MedVAR Generate")
        self.viewer.window.resize(*SIZE)
        self.settle()
        self.dock.setMinimumWidth(DOCK)
        self.dock.setMaximumWidth(DOCK)
        self.widget.sampling.fresh_box.setChecked(False)

    def settle(self) -> None:
        """Until the widget has nothing to do, and everything is drawn."""
        quiet = 0
        while quiet < 20:
            QApplication.processEvents()
            time.sleep(0.01)
            quiet = 0 if self.widget.busy else quiet + 1

    def make(self, condition: Condition, seed: int) -> None:
        """A picture."""
        self.widget.condition.show_condition(condition)
        self.widget.sampling.show_seed(seed)
        self.widget.scales.generate_button.click()
        self.settle()

    def open_fold(self, name: str | None) -> None:
        """One fold alone, in sight."""
        for each, fold in self.widget.folds.items():
            if each == name:
                fold.expand()
            else:
                fold.collapse()
        self.settle()
        if name is not None:
            self.widget.area.ensureWidgetVisible(self.widget.folds[name], 0, 0)
            bar = self.widget.area.verticalScrollBar()
            bar.setValue(min(bar.maximum(), self.widget.folds[name].y() - 12))
        else:
            self.widget.area.verticalScrollBar().setValue(0)
        self.settle()

    def shoot(self, name: str, theme: str = "dark") -> None:
        """The whole window."""
        self.viewer.theme = theme
        self.settle()
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        image = Image.fromarray(pixels).convert("RGB")
        image = image.quantize(COLOURS, dither=Image.Dither.NONE)
        path = self.folder / f"{name}.png"
        image.save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, {image.width}×{image.height}")


def grown(studio: Studio) -> None:
    """A picture as it is after Generate."""
    studio.make(Condition("CT", "chest", "axial"), studio.seed)
    studio.open_fold(None)
    studio.shoot("plugin")
    studio.shoot("plugin-light", "light")


def views(studio: Studio) -> None:
    """All scales, and a map."""
    studio.widget.views.show_view("scales")
    studio.settle()
    studio.shoot("plugin-scales")
    studio.widget.views.show_view("entropy")
    studio.settle()
    studio.shoot("plugin-entropy")
    studio.widget.views.show_view("picture")
    studio.settle()


def mask(studio: Studio) -> None:
    """A painted mask, before resampling inside it."""
    studio.open_fold("edit")
    studio.widget.scales.slider.setValue(3)
    studio.widget.edit.panel.paint_button.click()
    layer = studio.viewer.layers["mask"]
    size = layer.data.shape[0]
    y, x = np.ogrid[:size, :size]
    ellipse = ((y - size * 0.5) / (size * 0.16)) ** 2 + ((x - size * 0.33) / (size * 0.12)) ** 2 < 1
    layer.data = ellipse.astype(np.uint8)
    studio.widget.edit.panel.outside_combo.setCurrentIndex(1)
    studio.widget.scales.slider.setValue(len(studio.widget.edit.panel.lock_buttons) - 1)
    studio.widget.scales.slider.setValue(3)
    studio.widget.picture.layers.show_only(len(studio.widget.edit.panel.lock_buttons) - 1)
    studio.settle()
    studio.shoot("plugin-mask")
    studio.widget.edit.panel.resample_button.click()
    studio.settle()
    studio.viewer.layers.remove("mask")
    studio.settle()


def candidates(studio: Studio) -> None:
    """A contact sheet."""
    studio.viewer.layers.selection.active = studio.widget.picture.layers.all()[-1]
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
    """Two pictures side by side, out of the history."""
    studio.make(Condition("MR", "brain", "axial"), studio.seed)
    nodes = studio.widget.session.tree.nodes
    studio.widget.history.rename(nodes[0].id, "chest, the first")
    studio.widget.history.rename(nodes[1].id, "right lung drawn anew")
    studio.open_fold("history")
    studio.widget.history.panel.compare_button.blockSignals(True)
    studio.widget.history.panel.compare_button.setChecked(True)
    studio.widget.history.panel.compare_button.blockSignals(False)
    studio.widget.history.compare(nodes[0].id, nodes[1].id)
    studio.settle()
    studio.shoot("plugin-compare")
    studio.widget.history.end_compare()
    studio.settle()


SCENES: dict[str, Callable[[Studio], None]] = {
    "grown": grown,
    "views": views,
    "mask": mask,
    "candidates": candidates,
    "compare": compare,
}


def main() -> None:
    """All scenes, one after the other: each goes on from the one before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=IMAGES)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(arguments.folder, arguments.seed)
    for scene in SCENES.values():
        scene(studio)
    studio.viewer.close()


if __name__ == "__main__":
    main()
