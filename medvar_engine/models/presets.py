"""Named model sizes: ``resolution`` and ``demo`` train on two CPU cores; ``d16``…``d30`` are VAR's, and MedVAR's.

``resolution`` is a pyramid of the image's own resolutions; the others are pyramids of latents.
"""

from __future__ import annotations

from dataclasses import replace

from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import Structures
from medvar_engine.models.resolution_tokenizer import ResolutionConfig
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import TransformerConfig

VAR_SCHEDULE = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # 680 tokens
_SCHEDULES = {  # by the side of the latent; those of 16 and 32 are VAR's for 256 and 512 pixels
    8: (1, 2, 3, 4, 5, 6, 8),
    14: (1, 2, 3, 4, 5, 6, 8, 10, 12, 14),
    16: VAR_SCHEDULE,
    28: (1, 2, 3, 4, 6, 8, 11, 15, 21, 28),
    32: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
}
_DEMO_SCHEDULE = (1, 2, 4, 6, 8, 10, 13, 16)  # 646 tokens

TOKENIZERS: dict[str, TokenizerConfig] = {
    "demo": TokenizerConfig(
        image_size=128,
        schedule=_DEMO_SCHEDULE,
        vocabulary=2048,
        latent_channels=16,
        channels=(32, 64, 128),
        res_blocks=1,
        groups=8,
        patch=2,
        linear_path=True,
    ),
    "small": TokenizerConfig(
        image_size=256,
        schedule=VAR_SCHEDULE,
        vocabulary=4096,
        latent_channels=32,
        channels=(64, 64, 128, 128, 256),
        res_blocks=2,
    ),
    "var": TokenizerConfig(
        image_size=256,
        schedule=VAR_SCHEDULE,
        vocabulary=4096,
        latent_channels=32,
        channels=(160, 160, 320, 320, 640),
        res_blocks=2,
    ),
}

RESOLUTION_TOKENIZERS: dict[int, ResolutionConfig] = {  # by pixels of a side
    128: ResolutionConfig(128, _DEMO_SCHEDULE, vocabulary=2048),
    192: ResolutionConfig(192, (1, 2, 4, 6, 8, 11, 14, 18, 24), vocabulary=2048),
    256: ResolutionConfig(256, (1, 2, 4, 6, 8, 11, 15, 20, 26, 32), vocabulary=2048),
}

MASK_SIDES = {128: (3, 5, 11), 192: (3, 7, 16), 256: (3, 9, 21)}  # of scales that code masks, by pixels of a side
_MASK_CHANNELS = 6
_MASK_FEATURES = 192  # scale features of pairs, which show more than images do

_DEPTHS = {"d16": 16, "d20": 20, "d24": 24, "d30": 30}

PRESETS = ("resolution", "demo", "small", *_DEPTHS)


def tokenizer_preset(name: str, image_size: int | None = None) -> TokenizerConfig | ResolutionConfig:
    """The tokenizer of a preset; ``d16``…``d30`` share VAR's.

    ``image_size`` in pixels, when it is not the preset's own, brings a schedule that suits the latent's side. Raises
    `MedvarError` for an unknown preset, or a size that it cannot have.
    """
    _check(name)
    if name == "resolution":
        return _resolution(128 if image_size is None else image_size)
    preset = TOKENIZERS["var" if name in _DEPTHS else name]
    if image_size in (None, preset.image_size):
        return preset
    factor = preset.image_size // preset.schedule[-1]
    if image_size % factor or image_size // factor not in _SCHEDULES:
        sizes = ", ".join(str(side * factor) for side in _SCHEDULES)
        raise MedvarError(f"The preset {name} is made for images of {sizes} pixels a side, not {image_size}.")
    return replace(preset, image_size=image_size, schedule=_SCHEDULES[image_size // factor])


def _resolution(image_size: int) -> ResolutionConfig:
    if image_size not in RESOLUTION_TOKENIZERS:
        sizes = ", ".join(map(str, RESOLUTION_TOKENIZERS))
        raise MedvarError(f"The preset resolution is made for images of {sizes} pixels a side, not {image_size}.")
    return RESOLUTION_TOKENIZERS[image_size]


def with_masks(config: ResolutionConfig, structures: Structures) -> ResolutionConfig:
    """The same tokenizer for pairs of image and mask: with scales, among the others, that code the mask."""
    sides = MASK_SIDES[config.image_size]
    schedule = tuple(sorted((*config.schedule, *sides)))
    return replace(
        config,
        schedule=schedule,
        feature_channels=max(config.feature_channels, _MASK_FEATURES),
        structures=tuple(one.name for one in structures),
        colours=tuple(one.colour for one in structures),
        mask_scales=tuple(schedule.index(side) for side in sides),
        mask_channels=_MASK_CHANNELS,
    )


def transformer_preset(
    name: str, tokenizer: TokenizerConfig | ResolutionConfig, labels: tuple[int, ...]
) -> TransformerConfig:
    """The transformer of a preset, fitted to a tokenizer and a label space (names a factor)."""
    _check(name)
    shape = (tokenizer.schedule, tokenizer.vocabulary, tokenizer.feature_channels, labels)
    if name == "resolution":
        return TransformerConfig(*shape, depth=6, width=192, heads=3, shared_modulation=True)
    if name == "demo":
        return TransformerConfig(*shape, depth=8, width=192, heads=3, drop_path=0.05, shared_modulation=True)
    if name == "small":
        return TransformerConfig(*shape, depth=12, width=512, heads=8, drop_path=0.05)
    depth = _DEPTHS[name]  # VAR: width 64·depth, heads = depth, drop path 0.1·depth/24
    return TransformerConfig(*shape, depth=depth, width=64 * depth, heads=depth, drop_path=0.1 * depth / 24)


def _check(name: str) -> None:
    if name not in PRESETS:
        raise MedvarError(f"Unknown preset {name!r}; the presets are {', '.join(PRESETS)}.")
