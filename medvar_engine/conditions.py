"""`Condition`: what an image should show, and `LabelSpace`: the numbers of conditions in a model.

A condition has six factors: five names, and a position along the axis of the scan. A missing factor is `None`, the
unconditional class of that factor. The networks receive one integer per factor: the number of a name, or the number of
the evenly spaced step that contains the position. The next number, ``len(names)`` or the number of steps, stands for
`None`, like the last row of VAR's class embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Any

from medvar_engine.errors import MedvarError

NAMED = ("modality", "region", "plane", "dataset", "contrast")
"""The factors with names as values."""
FACTORS = (*NAMED, "position")
"""All factors, in the order in which the networks see them."""
POSITION_STEPS = 8
"""Number of evenly spaced steps of the position in newly trained models."""
MAX_POSITION_STEPS = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One image's condition, e.g. ``Condition(modality="MR", region="brain", plane="axial", position=0.4)``.

    ``position`` is the position of the slice along the axis of the scan, from 0 to 1: from feet to head (axial), from
    back to front (coronal), or from left to right (sagittal) of the patient. Raises `MedvarError` for other values.
    """

    modality: str | None = None
    region: str | None = None
    plane: str | None = None
    dataset: str | None = None
    contrast: str | None = None
    position: float | None = None

    def __post_init__(self) -> None:
        if self.position is not None:
            object.__setattr__(self, "position", _checked_position(self.position))

    def to_dict(self) -> dict[str, Any]:
        """Factor → value, without the factors that are `None`."""
        return {name: value for name in FACTORS if (value := getattr(self, name)) is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Condition:
        """The inverse of `to_dict`. Raises `MedvarError` for an unknown factor or an impossible value."""
        for name in values:
            if name not in FACTORS:
                raise MedvarError(f"Unknown condition factor {name!r}; the factors are {', '.join(FACTORS)}.")
            if name in NAMED and not isinstance(values[name], str | None):
                raise MedvarError(f"The condition factor {name} must be a name, but is {values[name]!r}.")
        return cls(**values)

    @property
    def words(self) -> tuple[str, ...]:
        """The condition as words, for users and file names."""
        names = tuple(name for factor in NAMED if (name := getattr(self, factor)) is not None)
        return names if self.position is None else (*names, f"position {self.position:g}")

    def __str__(self) -> str:
        return " ".join(self.words) or "unconditional"


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The names that a model knows for each factor, and the number of steps of the position.

    The model is not conditioned on a factor without names, or on a position with 0 steps.
    """

    modality: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    plane: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    contrast: tuple[str, ...] = ()
    position: int = 0

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors this model is conditioned on, in `FACTORS` order."""
        return tuple(name for name in FACTORS if getattr(self, name))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of names or steps of every factor in `factors`; the embedding has one more row for `None`."""
        return tuple(self.size(name) for name in self.factors)

    def size(self, factor: str) -> int:
        """Number of names or steps of one factor; 0 if the model is not conditioned on it."""
        return self.position if factor == "position" else len(getattr(self, factor))

    @property
    def unconditional(self) -> tuple[int, ...]:
        """The label of the condition without any factor."""
        return self.sizes

    def encode(self, condition: Condition) -> tuple[int, ...]:
        """The label of a condition: one integer per factor. Raises `MedvarError` for unknown names."""
        for name, value in condition.to_dict().items():
            if not self._knows(name, value):
                raise MedvarError(_unknown_label(name, value, getattr(self, name)))
        return tuple(self._number(name, getattr(condition, name)) for name in self.factors)

    def neighbouring_step(self, condition: Condition) -> tuple[tuple[int, ...], float]:
        """The label of the step next to the position of ``condition``, and its share, from 0 to 0.5.

        The share is linear in the distance from the middle of the own step. It is 0 without a position, and beyond the
        middle of the first and the last step.
        """
        label = self.encode(condition)
        if condition.position is None:
            return label, 0.0
        offset = condition.position * self.position - label[-1] - 0.5
        near = label[-1] + (1 if offset > 0 else -1)
        return ((*label[:-1], near), abs(offset)) if 0 <= near < self.position else (label, 0.0)

    def known(self, condition: Condition) -> Condition:
        """The part of ``condition`` that this space knows; other factors are removed."""
        return Condition(**{name: value for name, value in condition.to_dict().items() if self._knows(name, value)})

    def decode(self, label: Iterable[int]) -> Condition:
        """The condition of a label. The inverse of `encode`, except that a position becomes the middle of its step."""
        values: dict[str, Any] = {}
        for name, index in zip(self.factors, label, strict=True):
            size = self.size(name)
            if not 0 <= index <= size:
                raise MedvarError(f"Label {index} of {name} is out of range 0…{size}.")
            if index < size:
                values[name] = (index + 0.5) / size if name == "position" else getattr(self, name)[index]
        return Condition(**values)

    def to_dict(self) -> dict[str, Any]:
        """Factor → names, or steps of the position, for JSON."""
        spaces = {name: list(getattr(self, name)) for name in NAMED if getattr(self, name)}
        return {**spaces, "position": self.position} if self.position else spaces

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSpace:
        """The inverse of `to_dict`. Raises `MedvarError` for factors and values that no label space has."""
        spaces = dict(values)
        steps = spaces.pop("position", 0)
        if type(steps) is not int or not 0 <= steps <= MAX_POSITION_STEPS:
            raise MedvarError(
                f"The labels of position must be a number of steps up to {MAX_POSITION_STEPS}, but are {steps!r}."
            )
        for name, names in spaces.items():
            if name not in NAMED:
                raise MedvarError(f"Unknown condition factor {name!r}; the factors are {', '.join(FACTORS)}.")
            if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
                raise MedvarError(f"The labels of {name} must be a list of names, but are {names!r}.")
        return cls(**{name: tuple(names) for name, names in spaces.items()}, position=steps)

    @classmethod
    def of(cls, conditions: Iterable[Condition]) -> LabelSpace:
        """The sorted names that occur in ``conditions``, and `POSITION_STEPS` if a position occurs."""
        seen: dict[str, set[Any]] = {name: set() for name in FACTORS}
        for condition in conditions:
            for name, value in condition.to_dict().items():
                seen[name].add(value)
        steps = POSITION_STEPS if seen.pop("position") else 0
        return cls(**{name: tuple(sorted(values)) for name, values in seen.items()}, position=steps)

    def _knows(self, factor: str, value: Any) -> bool:
        return self.position > 0 if factor == "position" else value in getattr(self, factor)

    def _number(self, factor: str, value: Any) -> int:
        if value is None:
            return self.size(factor)
        if factor == "position":
            return step_of(value, self.position)
        return int(getattr(self, factor).index(value))


def step_of(position: float, steps: int) -> int:
    """The number of the evenly spaced step from 0 to 1 that contains a position; 1 is in the last step."""
    return min(int(position * steps), steps - 1)


def _checked_position(value: Any) -> float:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and 0 <= value <= 1):  # false for NaN
        raise MedvarError(
            f"position is the position of the slice along the scan, a number from 0 to 1, but is {value!r}."
        )
    return abs(float(value))  # of -0.0, 0.0


def _unknown_label(factor: str, value: Any, names: tuple[str, ...] | int) -> str:
    if isinstance(names, int) or not names:
        return f"This model is not conditioned on {factor}, so {factor}={value!r} cannot be requested. Leave it out."
    close = get_close_matches(value, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {factor} {value!r}.{hint} This model knows: {listed(names)}."


def listed(names: Sequence[str], most: int = 40) -> str:
    """Names as text; for more than ``most`` names, only the first three and the last."""
    if len(names) > most:
        return f"{', '.join(names[:3])}, …, {names[-1]} ({len(names)} names)"
    return ", ".join(names)
