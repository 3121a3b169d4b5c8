"""The one configuration of a training run: a TOML or YAML file, and overrides ``name=value``."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from medvar_engine.conditions import FACTORS
from medvar_engine.data.shards.files import sha256
from medvar_engine.errors import MedvarError

MAX_SEED = 1_000_000  # so that seeds derived from it fit 64 bits


@dataclass(frozen=True)
class TrainConfig:
    """What a run is. Every field can be set in the file or by ``name=value`` on the command line."""

    stage: Literal["tokenizer", "transformer"]
    data: Path  # folder written by `medvar prepare`
    out: Path  # folder of this run: checkpoints, logs, samples
    preset: str = "demo"
    tokenizer: Path | None = None  # trained tokenizer (.safetensors); stage transformer needs it, tokenizer may go on

    # how long, how fast
    steps: int = 10_000
    batch_size: int = 32
    learning_rate: float = 5e-4
    warmup: int = 200  # steps of linear warm-up; a cosine follows
    final_learning_rate: float = 0.05  # as a share of learning_rate
    weight_decay: float = 0.05
    beta2: float = 0.95  # of AdamW; beta1 is 0.9
    clip: float = 2.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights that are validated, sampled and exported
    seed: int = 0
    device: str = "auto"  # cpu, cuda, cuda:1 …; auto takes CUDA when there
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the hardware has it
    threads: int | None = None  # of the CPU; None leaves torch's choice
    factors: tuple[str, ...] = ("modality", "region", "plane")  # what the transformer is conditioned on
    short: float = 0.0  # share of steps that leave out the finest quarter of the scales, which cost most
    dropout: float | None = None  # of the transformer; None is the preset's

    # what is shown and kept
    log_every: int = 20
    validate_every: int = 500
    validate_slices: int = 256  # held-out slices looked at, spread evenly
    save_every: int | None = None  # steps between checkpoints; None is validate_every
    keep: int = 2  # newest checkpoints kept, and beside them the best

    # augmentation: plausible change of the input
    augment: bool = True
    balance: float = 0.5  # 0: every slice alike; 1: every modality × region × plane alike
    variants: int = 4  # stage transformer: augmented copies of each slice that are encoded once
    pyramids: Path | None = None  # folder written by `medvar encode`; None encodes at the start, into out

    # tokenizer losses
    l1: float = 1.0
    l2: float = 1.0
    gradient: float = 1.0
    codebook: float = 1.0
    adversarial: float = 0.0  # weight of the patch discriminator; 0 switches it off
    adversarial_start: float = 0.5  # share of the run after which it joins
    random_depth: float = 0.1  # share of images decoded from their first few scales only
    decoder_only: bool = False  # improve the decoder of a trained tokenizer; tokens, and so transformers, stay valid
    continuous: float = 0.15  # share of the run over which quantisation is faded in
    restart_every: int = 50  # steps between restarts of dead codes
    restart_until: float = 0.7  # share of the run after which no code is restarted

    def __post_init__(self) -> None:
        if self.stage not in ("tokenizer", "transformer"):
            raise MedvarError(f"stage is 'tokenizer' or 'transformer', not {self.stage!r}.")
        if self.stage == "transformer" and self.tokenizer is None:
            raise MedvarError("Stage transformer needs a trained tokenizer: set tokenizer=PATH of its .safetensors.")
        if self.decoder_only and (self.stage != "tokenizer" or self.tokenizer is None):
            raise MedvarError("decoder_only goes on with a trained tokenizer: set stage=tokenizer and tokenizer=PATH.")
        if unknown := sorted(set(self.factors) - set(FACTORS)):
            raise MedvarError(f"factors are of {', '.join(FACTORS)}, not {unknown[0]!r}.")
        for name in (
            "steps",
            "batch_size",
            "log_every",
            "validate_every",
            "keep",
            "restart_every",
            "variants",
            "validate_slices",
        ):
            if getattr(self, name) < 1:
                raise MedvarError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise MedvarError(f"seed must be between 0 and {MAX_SEED}, but is {self.seed}.")
        for name in ("ema", "balance", "random_depth", "short", "continuous", "restart_until", "adversarial_start"):
            if not 0 <= getattr(self, name) <= 1:
                raise MedvarError(f"{name} is a share from 0 to 1, but is {getattr(self, name)}.")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise MedvarError(f"{name} must be above 0, but is {getattr(self, name)}.")
        for name in ("threads", "save_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise MedvarError(f"{name} must be at least 1, but is {value}.")


def load_config(path: Path | None, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a ``.toml``, ``.yaml`` or ``.yml`` file (or none) and apply ``name=value`` overrides.

    Raises `MedvarError` naming the field for an unknown name or a value of the wrong type.
    """
    values = dict(_read(path)) if path else {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise MedvarError(f"An override is name=value, but got {override!r}.")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise MedvarError(f"The value of {override!r} cannot be read: {error}") from error
    types = typing.get_type_hints(TrainConfig)
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise MedvarError(f"Unknown setting {unknown[0]!r}; the settings are {', '.join(types)}.")
    missing = [
        f.name for f in dataclasses.fields(TrainConfig) if f.default is dataclasses.MISSING and f.name not in values
    ]
    if missing:
        raise MedvarError(f"Missing setting {missing[0]!r}: give it in the config file or as {missing[0]}=VALUE.")
    return TrainConfig(**{name: _convert(name, value, types[name]) for name, value in values.items()})


def config_from_arguments(arguments: Sequence[str]) -> TrainConfig:
    """`load_config` from ``[FILE] [name=value …]``, as both command lines take it."""
    if arguments and "=" not in arguments[0]:
        return load_config(Path(arguments[0]), arguments[1:])
    return load_config(None, arguments)


# What may change when a run is resumed: none of it changes what is learned.
_FREE = {"out", "device", "threads", "log_every", "validate_every", "validate_slices", "save_every", "keep", "data"}


def check_resumable(config: TrainConfig, values: Mapping[str, Any]) -> None:
    """Raise `MedvarError` naming the settings that differ from those of the checkpoint, ``values``."""
    now = json.loads(json.dumps(run_to_dict(config)))
    changed = [name for name in now if name not in _FREE and name in values and now[name] != values[name]]
    if changed:
        told = "; ".join(f"{name} was {values[name]!r} and is {now[name]!r}" for name in changed)
        raise MedvarError(
            f"The run was started with other settings: {told}. Resume with those, or choose another out folder."
        )


def run_to_dict(config: TrainConfig) -> dict[str, Any]:
    """What a checkpoint says of its run: the settings, and which slices it learns from."""
    manifest = config.data / "manifest.json"
    return config_to_dict(config) | {"slices_sha256": sha256(manifest)}


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MedvarError(f"There is no config file {path}.")
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise MedvarError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise MedvarError(f"{path} must hold settings as name = value.")
    return content


def _convert(name: str, value: Any, kind: Any) -> Any:
    """A value as the field's type; ints pass for floats, strings for paths."""
    options = typing.get_args(kind) if typing.get_origin(kind) is not None else (kind,)
    if typing.get_origin(kind) is Literal:
        if value in options:
            return value
        raise MedvarError(f"{name} is one of {', '.join(map(str, options))}, not {value!r}.")
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise MedvarError(f"{name} must be a list of names, but is {value!r}.")
    for option in options:
        if option is Path and isinstance(value, str):
            return Path(value).expanduser()
        if option is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                return float(value)  # YAML reads 1e-4 as text
            except ValueError:
                continue
        if isinstance(value, option) and not (option is int and isinstance(value, bool)):
            return value
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise MedvarError(f"{name} must be {names}, but is {value!r}.")
