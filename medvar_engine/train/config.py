"""The configuration of a training run, from a TOML or YAML file and overrides ``name=value``."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic.functional_validators import ModelWrapValidatorHandler

from medvar_engine.conditions import FACTORS
from medvar_engine.errors import MedvarError
from medvar_engine.storage import sha256
from medvar_engine.train.config_sections import (
    DataSettings,
    KeptSettings,
    MachineSettings,
    RunSettings,
    TokenizerSettings,
    TransformerSettings,
)
from medvar_engine.untrusted import plain_yaml
from medvar_engine.untrusted.check_fields import first_error, sentence


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TrainConfig(RunSettings, MachineSettings, KeptSettings, DataSettings, TokenizerSettings, TransformerSettings):
    """All settings of a run. Each can be given in the file or as ``name=value`` on the command line."""

    def __post_init__(self) -> None:
        if self.stage != "tokenizer" and self.tokenizer is None:
            raise MedvarError(f"Stage {self.stage} needs a trained tokenizer: set tokenizer=PATH of its .safetensors.")
        if self.decoder_only and (self.stage != "tokenizer" or self.tokenizer is None):
            raise MedvarError("decoder_only continues a trained tokenizer: set stage=tokenizer and tokenizer=PATH.")
        if self.perceptual and self.feature_network is None:
            raise MedvarError("perceptual needs a feature network: set feature_network=PATH of its .safetensors.")
        if self.masks and (self.stage != "tokenizer" or self.preset != "resolution"):
            raise MedvarError("masks needs a tokenizer of resolutions: set stage=tokenizer and preset=resolution.")
        if self.lora_rank and self.init is None:
            raise MedvarError("lora_rank changes a trained transformer: set init=PATH of its .safetensors.")
        if not self.factors:
            raise MedvarError(f"factors must contain at least one of {', '.join(FACTORS)}.")
        if unknown := sorted(set(self.factors) - set(FACTORS)):
            raise MedvarError(f"factors must be among {', '.join(FACTORS)}, not {unknown[0]!r}.")

    @model_validator(mode="wrap")
    @classmethod
    def _in_a_sentence(cls, values: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return build(values)
        except ValidationError as error:
            names = {"": [one.name for one in dataclasses.fields(cls)]}
            text = sentence(first_error(error), names, "in the config file or as {name}=VALUE")
            raise MedvarError(text) from error


def load_config(path: Path | None, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a ``.toml``, ``.yaml`` or ``.yml`` file (or none) and apply ``name=value`` overrides.

    Raises `MedvarError` naming the field for an unknown name or a value of the wrong type.
    """
    values = dict(_read(path)) if path else {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise MedvarError(f"An override must have the form name=value, but is {override!r}.")
        try:
            values[name] = plain_yaml.loads(text)
        except ValueError as error:
            raise MedvarError(f"The value of {override!r} cannot be read: {error}") from error
    return TrainConfig(**{str(name): value for name, value in values.items()})


def config_from_arguments(arguments: Sequence[str]) -> TrainConfig:
    """`load_config` from the arguments ``[FILE] [name=value …]``."""
    if arguments and "=" not in arguments[0]:
        return load_config(Path(arguments[0]), arguments[1:])
    return load_config(None, arguments)


# Settings that may change when a run is resumed: apart from rounding, they do not affect the result.
_FREE = {field.name for part in (MachineSettings, KeptSettings) for field in dataclasses.fields(part)} - {"precision"}
_FREE |= {"out", "data", "accumulate"}


def check_resumable(about: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise `MedvarError` if this run (``about``) and the checkpoint (``values``) differ; the message lists how."""
    now = json.loads(json.dumps(about))
    # A checkpoint of an earlier version lacks newer settings; without them it did what their defaults do.
    settings = dataclasses.fields(TrainConfig)
    defaults = {one.name: one.default for one in settings if one.default is not dataclasses.MISSING}
    before = json.loads(json.dumps(defaults)) | values
    changed = [name for name in now if name not in _FREE and name in before and now[name] != before[name]]
    if changed:
        differences = "; ".join(f"{name} was {before[name]!r} and is {now[name]!r}" for name in changed)
        raise MedvarError(
            f"The run was started with other settings: {differences}. Resume with those, or choose another out folder."
        )


def about_run(config: TrainConfig, parts: int) -> dict[str, Any]:
    """The record of a run in a checkpoint: settings, training slices, and the number of micro-batches per batch."""
    learnt_from = {"slices": config.data / "manifest.json", "tokenizer": config.tokenizer, "init": config.init}
    hashes = {f"{name}_sha256": sha256(path) for name, path in learnt_from.items() if path is not None}
    return config_to_dict(config) | hashes | {"parts_of_a_batch": parts}


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MedvarError(f"There is no config file {path}.")
    try:
        text = plain_yaml.read_text(path)
        content = tomllib.loads(text) if path.suffix == ".toml" else plain_yaml.loads(text)
    except (ValueError, RecursionError, OSError) as error:
        raise MedvarError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise MedvarError(f"{path} must contain settings as name = value.")
    return content
