"""What an image is asked to be: a `Condition`, and the `LabelSpace` that numbers it.

A condition has four factors. A factor left out is `None`: the unconditional class of that factor. The
networks see one integer a factor; the number of names of a factor, ``len(names)``, stands for `None`, as the
last row of VAR's class embedding does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches

from medvar_engine.errors import MedvarError

FACTORS = ("modality", "region", "plane", "dataset")


@dataclass(frozen=True, slots=True)
class Condition:
    """One image's condition, e.g. ``Condition(modality="MR", region="brain", plane="axial")``."""

    modality: str | None = None
    region: str | None = None
    plane: str | None = None
    dataset: str | None = None

    def to_dict(self) -> dict[str, str]:
        """Factor → name, without the factors that are `None`."""
        return {name: value for name in FACTORS if (value := getattr(self, name)) is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, str | None]) -> Condition:
        """The inverse of `to_dict`. Raises `MedvarError` on a factor that does not exist."""
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise MedvarError(f"Unknown condition factor {name!r}; the factors are {', '.join(FACTORS)}.")
            if not isinstance(values[name], str | None):
                raise MedvarError(f"The condition factor {name} is a name, but got {values[name]!r}.")
        return cls(**values)

    def __str__(self) -> str:
        return " ".join(self.to_dict().values()) or "unconditional"


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The names that a model knows, per factor. A factor without names is not conditioned on."""

    modality: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    plane: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors this model is conditioned on, in `FACTORS` order."""
        return tuple(name for name in FACTORS if getattr(self, name))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of names of every factor in `factors`; the embedding has one row more, for `None`."""
        return tuple(len(getattr(self, name)) for name in self.factors)

    @property
    def unconditional(self) -> tuple[int, ...]:
        """The label of the condition whose factors are all `None`."""
        return self.sizes

    def encode(self, condition: Condition) -> tuple[int, ...]:
        """Condition → one integer a factor. Raises `MedvarError` naming an unknown label."""
        for name in FACTORS:
            value = getattr(condition, name)
            names = getattr(self, name)
            if value is not None and value not in names:
                raise MedvarError(_unknown_label(name, value, names))
        return tuple(
            size if (value := getattr(condition, name)) is None else getattr(self, name).index(value)
            for name, size in zip(self.factors, self.sizes, strict=True)
        )

    def known(self, condition: Condition) -> Condition:
        """What of ``condition`` this space has names for; the other factors are left out."""
        values = {name: value for name, value in condition.to_dict().items() if value in getattr(self, name)}
        return Condition(**values)

    def decode(self, label: Iterable[int]) -> Condition:
        """One integer a factor → condition. The inverse of `encode`."""
        values = {}
        for name, index in zip(self.factors, label, strict=True):
            names = getattr(self, name)
            if not 0 <= index <= len(names):
                raise MedvarError(f"Label {index} of {name} is out of range 0…{len(names)}.")
            values[name] = names[index] if index < len(names) else None
        return Condition(**values)

    def to_dict(self) -> dict[str, list[str]]:
        """Factor → names, for JSON."""
        return {name: list(getattr(self, name)) for name in FACTORS if getattr(self, name)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Iterable[str]]) -> LabelSpace:
        """The inverse of `to_dict`."""
        for name in values:
            if name not in FACTORS:
                raise MedvarError(f"Unknown condition factor {name!r}; the factors are {', '.join(FACTORS)}.")
        return cls(**{name: tuple(names) for name, names in values.items()})

    @classmethod
    def of(cls, conditions: Iterable[Condition]) -> LabelSpace:
        """The sorted names that occur in `conditions`."""
        seen: dict[str, set[str]] = {name: set() for name in FACTORS}
        for condition in conditions:
            for name, value in condition.to_dict().items():
                seen[name].add(value)
        return cls(**{name: tuple(sorted(values)) for name, values in seen.items()})


def _unknown_label(factor: str, value: str, names: tuple[str, ...]) -> str:
    if not names:
        return f"This model is not conditioned on {factor}, so {factor}={value!r} cannot be asked for; leave it out."
    close = get_close_matches(value, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {factor} {value!r}.{hint} This model knows: {listed(names)}."


def listed(names: Sequence[str], most: int = 40) -> str:
    """Names for a person to read; of very many only the first and the last."""
    if len(names) > most:
        return f"{', '.join(names[:3])}, …, {names[-1]} ({len(names)} names)"
    return ", ".join(names)
