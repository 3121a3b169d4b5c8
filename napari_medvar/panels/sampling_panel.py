"""How tokens are drawn: the seed, and the settings that most people leave alone."""

from __future__ import annotations

import secrets

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QApplication, QCheckBox, QHBoxLayout, QPushButton, QSpinBox, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider, QLargeIntSpinBox

from medvar_engine.request import MAX_SEED, Sampling
from napari_medvar.panels.form_rows import add_row, calm, fold, plain_column, plain_form

MAX_COUNT = 64  # pictures at a time; more are a set
_ROLLED = 1_000_000  # rolled seeds stay short enough to be read out, typed, and seen whole

_SEED_TIP = (
    "Names the image: the same seed with the same settings gives the same image, on every computer. "
    "Another seed gives another image."
)
_FRESH_TIP = (
    "On: pressing Generate again draws another image, with a new seed. A seed that you typed is used as it is. "
    "Off: the seed changes only when you change it."
)
_COUNT_TIP = "How many images Generate makes, with seeds one up from each to the next. All go into the history."
_TIPS = {
    "guidance": "How closely the image keeps to what is asked for. Low: varied, sometimes off. High: typical, alike, "
    "in the end harsh. It grows from 0 at the coarsest scale to this at the finest.",
    "temperature": "How much is left to chance. Low: smooth and average. High: varied, with more mistakes. "
    "At 0 the likeliest is always taken, and the seed changes nothing.",
    "top_k": "Only the so many likeliest patterns can be drawn at each place. Fewer: cleaner and less varied. "
    "0: all of them.",
    "top_p": "Leaves out the least likely patterns: only the likeliest that together have this probability are drawn. "
    "Lower: cleaner and less varied. 1: all of them.",
}


class SamplingPanel(QWidget):
    """Seed, and in a fold guidance, temperature, top-k and top-p."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.seed_box = QLargeIntSpinBox()
        self.seed_box.setRange(0, MAX_SEED)
        self.roll_button = QPushButton("&New")
        self.roll_button.setToolTip("<p>Draw another seed, for another image.</p>")
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
            add_row(form, text, calm(slider), _TIPS[name])
        self.reset_button = QPushButton("Reset to the model's settings")
        self.reset_button.setToolTip("<p>The settings that whoever exported the model recommends.</p>")
        self.reset_button.clicked.connect(lambda: self.show_sampling(self._own))
        form.addRow(self.reset_button)
        self.fold = fold("Sampling", content, "How tokens are drawn: guidance, temperature, top-k, top-p.")
        self._own = Sampling()
        self._even_guidance = self._own.even_guidance

        row = QWidget()
        seeds = QHBoxLayout(row)
        seeds.setContentsMargins(0, 0, 0, 0)
        seeds.addWidget(calm(self.seed_box), 1)
        seeds.addWidget(self.roll_button)
        fields = QWidget()
        form = plain_form(fields)
        add_row(form, "Seed", row, _SEED_TIP)
        self.seed_box.setToolTip(f"<p>{_SEED_TIP}</p>")
        self.seed_box.setAccessibleName("Seed")
        add_row(form, "Images", calm(self.count_box), _COUNT_TIP)
        layout = plain_column(self)
        layout.addWidget(fields)
        layout.addWidget(self.fresh_box)
        layout.addWidget(self.fold)
        self.offer(self._own, vocabulary=4096)
        self.roll()

    @property
    def count(self) -> int:
        """How many pictures to make."""
        return self.count_box.value()

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.seed_box.value())

    @property
    def fresh(self) -> bool:
        """Whether every new picture gets a new seed."""
        return self.fresh_box.isChecked()

    @property
    def sampling(self) -> Sampling:
        """The settings. Rounded: sliders hold 1.4999999 where a person reads 1.5."""
        return Sampling(
            guidance=round(self.guidance.value(), 2),
            temperature=round(self.temperature.value(), 2),
            top_k=int(self.top_k.value()),
            top_p=round(self.top_p.value(), 2),
            even_guidance=self._even_guidance,
        )

    def roll(self) -> int:
        """Draw a new seed and show it."""
        self.show_seed(secrets.randbelow(_ROLLED))
        return self.seed

    def offer(self, sampling: Sampling, *, vocabulary: int) -> None:
        """Begin with a model's own settings."""
        self._own = sampling
        self.top_k.setRange(0, vocabulary)
        self.show_sampling(sampling)

    def show_seed(self, seed: int) -> None:
        """Set the seed."""
        focused = QApplication.focusWidget()
        self.seed_box.setValue(seed)
        if focused is not None:  # superqt's box takes the focus with every new value
            focused.setFocus()

    def show_sampling(self, sampling: Sampling) -> None:
        """Set everything else."""
        self._even_guidance = sampling.even_guidance
        for name in ("guidance", "temperature", "top_k", "top_p"):
            getattr(self, name).setValue(getattr(sampling, name))


def _slider(low: float, high: float, step: float) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setSingleStep(step)  # type: ignore[arg-type]  # superqt's annotation is that of the slider of integers
    slider.setDecimals(2)
    return slider
