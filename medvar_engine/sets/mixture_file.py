"""Reads a `Mixture` from a YAML file, with errors that name the line.

::

    seed: 0                      # seed of image 0; image i has the seed seed + i
    sampling: {guidance: 2.0}    # missing values are those of the bundle
    conditions:
      - {modality: CT, region: chest, plane: axial, weight: 3}
      - {modality: MR, region: brain, weight: 1, sampling: {top_p: 0.9}}

Instead of ``weight``, every condition can have ``count``, a number of images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AllowInfNan, BeforeValidator, ConfigDict, Field, Strict, model_validator
from pydantic.dataclasses import dataclass

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import FACTORS, Condition
from medvar_engine.errors import MedvarError
from medvar_engine.request import MAX_SEED, Sampling
from medvar_engine.sets.mixture import Component, Mixture
from medvar_engine.sets.set_plan import MOST_IMAGES
from medvar_engine.untrusted.check_fields import Stated, number
from medvar_engine.untrusted.yaml_fields import read_fields

_STRICT = ConfigDict(extra="forbid")
_Whole = Annotated[int, Strict()]
_Number = Annotated[float, BeforeValidator(number), AllowInfNan(False)]
_Seed = Annotated[_Whole, Field(ge=0, le=MAX_SEED, description="random seed of image 0")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _SamplingFields:
    """The differences from the default sampling."""

    guidance: Annotated[_Number | None, Field(description="guidance strength")] = None
    temperature: Annotated[_Number | None, Field(description="temperature")] = None
    top_k: Annotated[_Whole | None, Field(description="likeliest tokens that are kept")] = None
    top_p: Annotated[_Number | None, Field(description="probability of the tokens that are kept")] = None
    coarse_guidance: Annotated[_Number | None, Field(description="share of guidance at the coarsest scale")] = None
    coarse_top_p: Annotated[_Number | None, Field(description="share of top_p at the coarsest scale")] = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _ComponentFields:
    """One condition, with its share or its number of images."""

    modality: Any = None
    region: Any = None
    plane: Any = None
    dataset: Any = None
    contrast: Any = None
    position: Any = None
    weight: Annotated[_Number | None, Field(ge=1e-12, le=1e12, description="share relative to the others")] = None
    count: Annotated[_Whole | None, Field(ge=1, le=MOST_IMAGES, description="number of images")] = None
    seed: _Seed | None = None
    sampling: _SamplingFields | None = None

    @model_validator(mode="after")
    def _has_one_amount(self) -> Self:
        if self.weight is not None and self.count is not None:
            raise Stated("a condition can have a weight or a count, not both.")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _MixtureFields:
    """A whole file of a mixture."""

    seed: _Seed = 0
    sampling: _SamplingFields | None = None
    conditions: Annotated[tuple[_ComponentFields, ...], Field(min_length=1, description="conditions")]

    @model_validator(mode="after")
    def _has_one_kind_of_amounts(self) -> Self:
        counted = [one.count is not None for one in self.conditions]
        if len(set(counted)) > 1:
            raise Stated(f"conditions[{counted.index(not counted[0])}]: either all conditions need a count, or none.")
        return self


_KNOWN = {
    name: [one.name for one in dataclasses.fields(kind)]
    for name, kind in (("", _MixtureFields), ("conditions", _ComponentFields), ("sampling", _SamplingFields))
}


def read_mixture(path: Path, bundle: Bundle) -> Mixture:
    """Read a mixture for a bundle. Raises `MedvarError` that names the file, the line, and what is expected there."""
    file = read_fields(path, "mixture", _MixtureFields, _KNOWN)
    top = file.value
    with _at(file.place(("sampling",))):
        default = _sampling(top.sampling, bundle.sampling)
    components = []
    for i, own in enumerate(top.conditions):
        with _at(f"{file.place(('conditions', i))}: conditions[{i}]"):
            condition = Condition.from_dict(_given(own, FACTORS))
            bundle.labels.encode(condition)
        with _at(file.place(("conditions", i, "sampling"))):
            sampling = _sampling(own.sampling, default)
        amount = next((float(one) for one in (own.weight, own.count) if one is not None), 1.0)
        components.append(Component(condition, sampling, top.seed if own.seed is None else own.seed, amount))
    return Mixture(tuple(components), counted=top.conditions[0].count is not None)


def _sampling(own: _SamplingFields | None, default: Sampling) -> Sampling:
    """``default`` with the given values."""
    return default if own is None else dataclasses.replace(default, **_given(own, _KNOWN["sampling"]))


def _given(fields: object, names: Any) -> Mapping[str, Any]:
    return {name: value for name in names if (value := getattr(fields, name)) is not None}


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except MedvarError as error:
        raise MedvarError(f"{where}: {error}") from error
