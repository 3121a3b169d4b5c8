"""The main measures of an evaluation in one table, from its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Measure = tuple[str, str, str]
"""The name of a measure, its value, and the value of real slices or the ideal value."""

LARGEST = 6  # number of most frequent labels with reported octaves, of those with held-out slices
TRAINING = "training"
"""The slices with which a label is compared if it has too few held-out slices."""
_ALL = "all images"


def measures(values: Mapping[str, Any]) -> list[Measure]:
    """All measures in the JSON of an evaluation; those of earlier versions have fewer."""
    return [
        *_reconstruction(values.get("reconstruction")),
        *_texture(values.get("texture") or {}),
        *_distances(values["encoders"]),
        *_recognition(values.get("recognition")),
        *_pairs(values.get("pairs")),
        *_stacks(values.get("stacks") or {}),
        *_privacy(values),
        *_time(values.get("seconds_an_image")),
    ]


def _reconstruction(one: Mapping[str, Any] | None) -> Iterator[Measure]:
    if one is not None:
        before = ", ".join(f"{float(value):.1f}" for value in one["by_scale"])
        yield "reconstruction of held-out slices, dB", with_interval(one["full"]), ""
        yield "previews after each scale, dB", before, ""
        yield "loss by drawing the finest scale, dB", with_interval(one["finest_drawn"]), "0"
        if (masks := one.get("mask_dice")) is not None:
            yield "Dice of held-out masks encoded and decoded", with_interval(masks), "1"


def _texture(values: Mapping[str, Any]) -> Iterator[Measure]:
    if _ALL not in values:
        return
    held_out = (name for name, one in values.items() if name != _ALL and one.get("against") != TRAINING)
    labels = sorted(held_out, key=lambda name: -int(values[name]["images"]))[:LARGEST]
    textures = [values[name] for name in (_ALL, *labels)]
    synthetic = [_all_ratios(one) for one in textures]
    real = [_all_ratios(one["training"]) for one in textures if one.get("training") is not None]
    octaves = [f"power at {2**i} to {2 ** (i + 1)} periods per image" for i in range(len(values[_ALL]["octaves"]))]
    for i, name in enumerate(("mean gradient", *octaves)):
        ideal = f"{_shown([own[i] for own in real])} of training slices" if real else "1"
        yield f"{name}, synthetic / real", _shown([own[i] for own in synthetic]), ideal


def _all_ratios(texture: Mapping[str, Any]) -> list[float]:
    """The ratio of gradients, then that of each octave."""
    return [float(ratio) for ratio in (texture["gradient"], *texture["octaves"])]


def _shown(values: Sequence[float]) -> str:
    """The ratio of all images, and the range over the most frequent labels."""
    return f"{values[0]:.2f}{_range(values[1:])}"


def _range(values: Sequence[float]) -> str:
    """The range of values over the most frequent labels; empty without labels."""
    if len(values) < 2:
        return f" ({values[0]:.2f} in 1 label)" if values else ""
    return f" ({min(values):.2f} to {max(values):.2f} in {len(values)} labels)"


def _distances(encoders: Sequence[Mapping[str, Any]]) -> Iterator[Measure]:
    for one in encoders:
        if (pair := one.get("to_held_out")) is not None:
            ours, real = float(pair["synthetic"]), float(pair["training"])
            name = f"Fréchet distance to held-out slices by {one['encoder']['name']}"
            yield name, f"{ours:.3g}, {ours / max(real, 1e-12):.2f} times that of training slices", f"{real:.3g}"


def _recognition(one: Mapping[str, Any] | None) -> Iterator[Measure]:
    if one is not None:
        name = f"a classifier of real slices finds the requested region and plane ({len(one['classes'])} classes)"
        yield name, _share(one["synthetic"]), f"{_share(one['held_out'])} of held-out slices"


def _pairs(one: Mapping[str, Any] | None) -> Iterator[Measure]:
    if one is not None:
        real = f"{with_interval(one['held_out'])} of held-out pairs"
        yield "Dice between masks and a segmenter of real pairs", with_interval(one["synthetic"]), real
        yield "masks that may be copies", _share(one["mask_copies"]), ""
        if (both := one.get("pair_copies")) is not None:
            yield "pairs of which image and mask may be copies", _share(both), ""


def _stacks(values: Mapping[str, Any]) -> Iterator[Measure]:
    for name, one in values.items():
        ratio = float(one["stacks"]) / max(float(one["real"]), 1e-9)
        apart = f"{float(one['spacing_mm']):.3g} mm apart"
        yield f"difference of neighbouring slices {apart}, {name}, stacks / real volumes", f"{ratio:.2f}", "1"


def _privacy(values: Mapping[str, Any]) -> Iterator[Measure]:
    if (one := values.get("memorisation")) is not None:
        beside = f"{_share(one['false_alarms'])} of held-out slices" if "false_alarms" in one else ""
        yield "flagged as copies", _share(one["flagged"]), beside
    if (one := values.get("membership")) is not None:
        value, low, high = (float(one[name]) for name in ("auc", "low", "high"))
        yield "AUC of membership inference by likelihood", f"{value:.2f} ({low:.2f} to {high:.2f})", "0.5"


def _time(seconds: float | None) -> Iterator[Measure]:
    if seconds is not None:
        yield "time per image, s", f"{float(seconds):.2f}", ""


def with_interval(values: Mapping[str, Any]) -> str:
    """A value with its interval as text."""
    value, low, high = _numbers(values)
    if value is None:
        return "–"
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} ({low:.3g} to {high:.3g})"


def _share(values: Mapping[str, Any]) -> str:
    value, low, high = _numbers(values)
    if value is None:
        return "–"
    return f"{value:.1%}" if low is None or high is None else f"{value:.1%} ({low:.1%} to {high:.1%})"


def _numbers(values: Mapping[str, Any]) -> list[float | None]:
    return [None if values.get(name) is None else float(values[name]) for name in ("value", "low", "high")]
