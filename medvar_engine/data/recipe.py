"""`Recipe`: how scans become slices. The same recipe and the same scans give the same slices, to the bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medvar_engine.data.harmonise import MR_PERCENTILES, REGION_WINDOW, ct_window
from medvar_engine.data.slices import SliceRules
from medvar_engine.errors import MedvarError

CT_FOREGROUND_HU = -300.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Side of the slices in pixels, CT window (None: each region's own), slice rules, and every how many-th phase."""

    size: int = 128
    window: str | None = None
    rules: SliceRules = field(default_factory=SliceRules)
    phase_step: int = 8

    def __post_init__(self) -> None:
        if self.size < 8:
            raise MedvarError(f"size is the side of the slices in pixels, at least 8, but got {self.size}.")
        if self.phase_step < 1:
            raise MedvarError(f"phase_step is at least 1, but got {self.phase_step}.")
        if self.window is not None:
            ct_window(self.window)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        windows = {name: ct_window(self.window or preset) for name, preset in REGION_WINDOW.items()}
        return {
            "size": self.size,
            "planes": list(self.rules.planes),
            "max_anisotropy": self.rules.max_anisotropy,
            "min_side": self.rules.min_side,
            "min_foreground": self.rules.min_foreground,
            "min_relative": self.rules.min_relative,
            "ct_windows_hu": {name: [window.low, window.high] for name, window in windows.items()},
            "ct_foreground_hu": CT_FOREGROUND_HU,
            "mr_percentiles": list(MR_PERCENTILES),
            "phase_step": self.phase_step,
        }
