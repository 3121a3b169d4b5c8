"""What an image is asked to be: a `Condition`, and the `LabelSpace` that numbers it.

A condition has six factors: five names, and a position along the scan's axis. A factor left out is `None`: the
unconditional class of that factor. The networks see one integer a factor: the number of a name, or the number of the
even step in which the position lies. One number more, ``len(names)`` or the number of steps, stands for `None`, as the
last row of VAR's class embedding does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Any

from medvar_engine.errors import MedvarError

NAMED = ("modality", "region", "plane", "dataset", "contrast")
"""The factors whose values are names."""
FACTORS = (*NAMED, "position")
"""All factors, in the order in which the networks see them."""
POSITION_STEPS = 8
"""Even steps into which models that are trained from now on divide the position."""
MAX_POSITION_STEPS = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One image's condition, e.g. ``Condition(modality="MR", region="brain", plane="axial", position=0.4)``.

    ``position`` is where along the scan's axis the slice lies, from 0 to 1: from the feet to the head (axial), from
    back to front (coronal), or from left to right (sagittal), always the patient's. Raises `MedvarError` for any other.
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
        """The inverse of `to_dict`. Raises `MedvarError` on a factor that does not exist, or a value that none has."""
        for name in values:
            if name not in FACTORS:
                raise MedvarError(f"Unknown condition factor {name!r}; the factors are {', '.join(FACTORS)}.")
            if name in NAMED and not isinstance(values[name], str | None):
                raise MedvarError(f"The condition factor {name} is a name, but got {values[name]!r}.")
        return cls(**values)

    @property
    def words(self) -> tuple[str, ...]:
        """What is asked for, as words for people and file names."""
        names = tuple(name for factor in NAMED if (name := getattr(self, factor)) is not None)
        return names if self.position is None else (*names, f"position {self.position:g}")

    def __str__(self) -> str:
        return " ".join(self.words) or "unconditional"


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The names that a model knows, per factor, and the steps of the position.

    A factor without names, and a position of 0 steps, is not conditioned on.
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
        """Names or steps of every factor in `factors`; the embedding has one row more, for `None`."""
        return tuple(self.size(name) for name in self.factors)

    def size(self, factor: str) -> int:
        """Names or steps of one factor; 0 where it is not conditioned on."""
        return self.position if factor == "position" else len(getattr(self, factor))

    @property
    def unconditional(self) -> tuple[int, ...]:
        """The label of the condition whose factors are all `None`."""
        return self.sizes

    def encode(self, condition: Condition) -> tuple[int, ...]:
        """Condition → one integer a factor. Raises `MedvarError` naming what this space has no number for."""
        for name, value in condition.to_dict().items():
            if not self._knows(name, value):
                raise MedvarError(_unknown_label(name, value, getattr(self, name)))
        return tuple(self._number(name, getattr(condition, name)) for name in self.factors)

    def known(self, condition: Condition) -> Condition:
        """What of ``condition`` this space has numbers for; the other factors are left out."""
        return Condition(**{name: value for name, value in condition.to_dict().items() if self._knows(name, value)})

    def decode(self, label: Iterable[int]) -> Condition:
        """One integer a factor → condition. The inverse of `encode`, but that a position is the middle of its step."""
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
                f"The labels of position are a number of steps up to {MAX_POSITION_STEPS}, but got {steps!r}."
            )
        for name, names in spaces.items():
            if name not in NAMED:
                raise MedvarError(f"Unknown condition factor {name!r}; the factors are {', '.join(FACTORS)}.")
            if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
                raise MedvarError(f"The labels of {name} are a list of names, but got {names!r}.")
        return cls(**{name: tuple(names) for name, names in spaces.items()}, position=steps)

    @classmethod
    def of(cls, conditions: Iterable[Condition]) -> LabelSpace:
        """The sorted names that occur in ``conditions``, and `POSITION_STEPS` if a position does."""
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
    """Which of so many even steps from 0 to 1 a position lies in; 1 lies in the last."""
    return min(int(position * steps), steps - 1)


def _checked_position(value: Any) -> float:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and 0 <= value <= 1):  # NaN lies nowhere
        raise MedvarError(
            f"position is where the slice lies along the scan's axis, a number from 0 to 1, but got {value!r}."
        )
    return abs(float(value))  # of -0.0, 0.0


def _unknown_label(factor: str, value: Any, names: tuple[str, ...] | int) -> str:
    if isinstance(names, int) or not names:
        return f"This model is not conditioned on {factor}, so {factor}={value!r} cannot be asked for; leave it out."
    close = get_close_matches(value, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {factor} {value!r}.{hint} This model knows: {listed(names)}."


def listed(names: Sequence[str], most: int = 40) -> str:
    """Names for a person to read; of very many only the first and the last."""
    if len(names) > most:
        return f"{', '.join(names[:3])}, …, {names[-1]} ({len(names)} names)"
    return ", ".join(names)
