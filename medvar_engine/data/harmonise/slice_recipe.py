"""`Recipe`: how slices are made from scans. The same recipe and scans give exactly the same slices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from medvar_engine.data.check_setting import within
from medvar_engine.data.harmonise.intensity import (
    MR_PERCENTILES,
    OTHER_REGION_WINDOW,
    REGION_WINDOW,
    Window,
    ct_window,
)
from medvar_engine.data.harmonise.matrix import AIR
from medvar_engine.data.harmonise.slicing import SliceRules
from medvar_engine.errors import MedvarError
from medvar_engine.storage import sha256_of
from medvar_engine.value_range import ValueRange

FACES = ("keep", "crop", "skip")
DIFFUSION = ("b0", "all")
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Recipe:
    """All parameters by which slices are made from a volume.

    ``size`` is the side of the slices in pixels, and ``spacing_mm`` the pixel size; None fits the whole slice to the
    matrix. ``padding`` in [-1, 1] fills the area outside the scan. CT is clipped to the window of its region in
    ``windows``, or else to ``window``, or else to the region's default; a CT voxel above ``ct_foreground_hu`` is
    tissue. MR is clipped to the ``mr_percentiles`` of its foreground. Every ``phase_step``-th phase is read.
    ``diffusion`` selects the volumes with the lowest b-value (``b0``) or ``all``. ``faces`` of heads are kept or
    cropped, or such series are skipped.
    """

    size: int = 128
    window: Window | None = None
    rules: SliceRules = field(default_factory=SliceRules)
    phase_step: int = 8
    windows: Mapping[str, Window] = field(default_factory=dict)
    ct_foreground_hu: float = -300.0
    mr_percentiles: tuple[float, float] = MR_PERCENTILES
    spacing_mm: float | None = None
    padding: float = AIR
    faces: str = "keep"
    diffusion: str = "b0"

    def __post_init__(self) -> None:
        within("size, the side of the slices in pixels,", self.size, 8, 4096, whole=True)
        within("phase_step", self.phase_step, 1, 10_000, whole=True)
        within("ct_foreground_hu", self.ct_foreground_hu, -1100, 3000)
        within("padding, where -1 is black and 1 is white,", self.padding, -1, 1)
        if self.spacing_mm is not None:
            within("spacing_mm, the side of a pixel,", self.spacing_mm, 0.01, 100)
        if self.faces not in FACES:
            raise MedvarError(f"faces must be one of {', '.join(FACES)}, but is {self.faces!r}.")
        if self.diffusion not in DIFFUSION:
            raise MedvarError(f"diffusion must be one of {', '.join(DIFFUSION)}, but is {self.diffusion!r}.")
        try:
            low, high = self.mr_percentiles
            if not 0 <= low < high <= 100:
                raise ValueError
        except (TypeError, ValueError) as error:
            raise MedvarError(
                f"mr_percentiles must be two numbers from 0 to 100, low below high, but are {self.mr_percentiles!r}."
            ) from error
        if not isinstance(self.windows, Mapping) or not all(isinstance(region, str) for region in self.windows):
            raise MedvarError(f"windows must give a window for each region, but is {self.windows!r}.")
        for window in (*self.windows.values(), *([] if self.window is None else [self.window])):
            ct_window(window)

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """A recipe from flat settings, those of `SliceRules` among them; None stands for the default.

        Raises `MedvarError` for a setting that does not exist, or whose value is wrong.

        >>> Recipe.of(size=256, planes=["axial"], windows={"chest": "lung"}, spacing_mm=None).rules.planes
        ('axial',)
        """
        of_rules = {one.name for one in fields(SliceRules)}
        of_recipe = {one.name for one in fields(cls)} - {"rules"}
        if unknown := sorted(set(settings) - of_rules - of_recipe):
            raise MedvarError(
                f"There is no setting {unknown[0]!r}. The settings are {', '.join(sorted(of_rules | of_recipe))}."
            )
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
            if value is not None
        }
        rules = SliceRules(**{name: value for name, value in given.items() if name in of_rules})
        return cls(rules=rules, **{name: value for name, value in given.items() if name in of_recipe})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; missing parameters have their defaults."""
        settings = dict(values)
        windows = dict(settings.pop("ct_windows_hu", {}))
        window = windows.pop(OTHER, None)
        return cls.of(window=window, windows=windows, **settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest: all parameters, with windows as low and high in HU for each region."""
        windows = {name: self.ct_window(name) for name in sorted({*REGION_WINDOW, *self.windows})}
        windows[OTHER] = self.ct_window(OTHER)
        return {
            "size": self.size,
            "planes": list(self.rules.planes),
            "max_anisotropy": self.rules.max_anisotropy,
            "min_side": self.rules.min_side,
            "min_foreground": self.rules.min_foreground,
            "min_relative": self.rules.min_relative,
            "duplicate_bits": self.rules.duplicate_bits,
            "duplicate_difference": self.rules.duplicate_difference,
            "ct_windows_hu": {name: [values.low, values.high] for name, values in windows.items()},
            "ct_foreground_hu": self.ct_foreground_hu,
            "mr_percentiles": list(self.mr_percentiles),
            "spacing_mm": self.spacing_mm,
            "padding": self.padding,
            "phase_step": self.phase_step,
            "faces": self.faces,
            "diffusion": self.diffusion,
        }

    def digest(self) -> str:
        """The sha256 of `to_dict` as sorted JSON: recipes with the same digest make the same slices."""
        text = json.dumps(_canonical(self.to_dict()), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return sha256_of(text)

    def ct_window(self, region: str) -> ValueRange:
        """The HU range for CT of a region."""
        return ct_window(self.windows.get(region) or self.window or REGION_WINDOW.get(region, OTHER_REGION_WINDOW))


def _canonical(value: Any) -> Any:
    """Whole numbers as floats, so that 1 and 1.0 are written in the same way."""
    if isinstance(value, dict):
        return {name: _canonical(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    return float(value) if isinstance(value, int) else value
