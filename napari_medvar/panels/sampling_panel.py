"""`SamplingPanel`: number of images, seed, and the settings by which tokens are drawn."""

from __future__ import annotations

import secrets
from dataclasses import replace

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QApplication, QCheckBox, QHBoxLayout, QPushButton, QSpinBox, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider, QLargeIntSpinBox

from medvar_engine.request import MAX_SEED, Sampling
from napari_medvar.panels.form_rows import add_row, fold, plain_column, plain_form, without_wheel

MAX_COUNT = 64  # images at a time; more are a synthetic dataset
_ROLLED = 1_000_000  # random seeds are short enough to be read aloud, typed and shown in full

_SEED_TIP = (
    "The random seed. The same seed with the same settings gives the same image on every computer; another seed gives "
    "another image."
)
_FRESH_TIP = (
    "On: Generate uses a new seed for each new image. A seed that you type is used unchanged. Off: the seed "
    "changes only when you change it."
)
_COUNT_TIP = "How many images Generate makes. Their seeds count up by one. All are added to the history."
_TIPS = {
    "guidance": "How closely the image follows the condition. Low: varied images, some of them wrong. High: "
    "typical, similar images with more detail; very high values give harsh contrast.",
    "temperature": "How random the image is. Low: smooth, average images. High: varied images with more errors. "
    "At 0 the most likely token is always taken, and the seed has no effect.",
    "top_k": "Only this number of the most likely tokens can be drawn at each place. Fewer: cleaner, less varied "
    "images. 0: all tokens.",
    "top_p": "Only the most likely tokens that together have this probability can be drawn at each place. Lower: "
    "cleaner, less varied images. 1: all tokens.",
}


class SamplingPanel(QWidget):
    """The number of images and the seed; in a collapsible section guidance, temperature, top-k and top-p."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.seed_box = QLargeIntSpinBox()
        self.seed_box.setRange(0, MAX_SEED)
        self.roll_button = QPushButton("&New")
        self.roll_button.setToolTip("<p>Choose a new random seed, for another image.</p>")
        self.roll_button.setAccessibleName("New seed")
        self.roll_button.clicked.connect(self.roll)
        self.fresh_box = QCheckBox("New seed for every image")
        self.fresh_box.setToolTip(f"<p>{_FRESH_TIP}</p>")
        self.fresh_box.setChecked(True)
        self.seed_box.valueChanged.connect(self.changed)

        self.guidance = _slider(0, 10, 0.1)
        self.temperature = _slider(0, 2, 0.01)
        self.top_k = QLabeledSlider(Qt.Orientation.Horizontal)
        self.top_p = _slider(0.01, 1, 0.01)
        self.count_box = QSpinBox()
        self.count_box.setRange(1, MAX_COUNT)
        content = QWidget()
        form = plain_form(content)
        for name, text in (
            ("guidance", "Guidance"),
            ("temperature", "Temperature"),
            ("top_k", "Top-k"),
            ("top_p", "Top-p"),
        ):
            slider = getattr(self, name)
            slider.valueChanged.connect(self.changed)
            add_row(form, text, without_wheel(slider), _TIPS[name])
        self.reset_button = QPushButton("Reset to the model's settings")
        self.reset_button.setToolTip("<p>Use the settings that the authors of the model recommend.</p>")
        self.reset_button.clicked.connect(lambda: self.show_sampling(self._own))
        form.addRow(self.reset_button)
        self.fold = fold("Sampling", content, "How tokens are drawn: guidance, temperature, top-k, top-p.")
        self._own = self._shown = Sampling()

        row = QWidget()
        seeds = QHBoxLayout(row)
        seeds.setContentsMargins(0, 0, 0, 0)
        seeds.addWidget(without_wheel(self.seed_box), 1)
        seeds.addWidget(self.roll_button)
        fields = QWidget()
        form = plain_form(fields)
        add_row(form, "Seed", row, _SEED_TIP)
        self.seed_box.setToolTip(f"<p>{_SEED_TIP}</p>")
        self.seed_box.setAccessibleName("Seed")
        add_row(form, "Images", without_wheel(self.count_box), _COUNT_TIP)
        layout = plain_column(self)
        layout.addWidget(fields)
        layout.addWidget(self.fresh_box)
        layout.addWidget(self.fold)
        self.offer(self._own, vocabulary=4096)
        self.roll()

    @property
    def count(self) -> int:
        """The number of images to make."""
        return self.count_box.value()

    @property
    def seed(self) -> int:
        """The seed of the first image."""
        return int(self.seed_box.value())

    @property
    def fresh(self) -> bool:
        """Whether every new image gets a new seed."""
        return self.fresh_box.isChecked()

    @property
    def sampling(self) -> Sampling:
        """The settings that are shown; values are rounded because a slider that shows 1.5 may hold 1.4999999."""
        return replace(
            self._shown,
            guidance=round(self.guidance.value(), 2),
            temperature=round(self.temperature.value(), 2),
            top_k=int(self.top_k.value()),
            top_p=round(self.top_p.value(), 2),
        )

    def roll(self) -> int:
        """Choose a new random seed, show it and return it."""
        self.show_seed(secrets.randbelow(_ROLLED))
        return self.seed

    def offer(self, sampling: Sampling, *, vocabulary: int) -> None:
        """Show the recommended settings of a model with ``vocabulary`` tokens."""
        self._own = sampling
        self.top_k.setRange(0, vocabulary)
        self.show_sampling(sampling)

    def show_seed(self, seed: int) -> None:
        """Show a seed."""
        focused = QApplication.focusWidget()
        self.seed_box.setValue(seed)
        if focused is not None:  # superqt's box takes the focus whenever its value is set
            focused.setFocus()

    def show_sampling(self, sampling: Sampling) -> None:
        """Show sampling settings."""
        self._shown = sampling
        for name in ("guidance", "temperature", "top_k", "top_p"):
            getattr(self, name).setValue(getattr(sampling, name))


def _slider(low: float, high: float, step: float) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setSingleStep(step)  # type: ignore[arg-type]  # superqt's annotation is for integers
    slider.setDecimals(2)
    return slider
