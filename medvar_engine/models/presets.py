"""Named model sizes.

``resolution`` and ``demo`` can be trained on two CPU cores; ``d16``…``d30`` are the sizes of VAR and MedVAR.
``resolution`` has a pyramid of image resolutions; the others have pyramids of latents.
"""

from __future__ import annotations

from dataclasses import replace

from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import Structures
from medvar_engine.models.resolution_tokenizer import ResolutionConfig
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import TransformerConfig

VAR_SCHEDULE = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # 680 tokens
_SCHEDULES = {  # by the side of the latent; 16 and 32 are those of VAR for 256 and 512 pixels
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

RESOLUTION_TOKENIZERS: dict[int, ResolutionConfig] = {  # by pixels per side
    128: ResolutionConfig(128, _DEMO_SCHEDULE, vocabulary=2048),
    192: ResolutionConfig(192, (1, 2, 4, 6, 8, 11, 14, 18, 24), vocabulary=2048),
    256: ResolutionConfig(256, (1, 2, 4, 6, 8, 11, 15, 20, 26, 32), vocabulary=2048),
}

MASK_SIDES = {
    128: (3, 5, 9),
    192: (3, 7, 13),
    256: (3, 9, 18),
}  # sides of the scales that encode masks, by pixels per side
_MASK_CHANNELS = 4  # at most
_MASK_FEATURES = 192  # channels of scale features of pairs, which hold more information than images

_DEPTHS = {"d16": 16, "d20": 20, "d24": 24, "d30": 30}

PRESETS = ("resolution", "demo", "small", *_DEPTHS)


def tokenizer_preset(name: str, image_size: int | None = None) -> TokenizerConfig | ResolutionConfig:
    """The tokenizer configuration of a preset; ``d16``…``d30`` share that of VAR.

    ``image_size`` in pixels changes the image size of the preset and chooses a schedule for the side of the latent.
    Raises `MedvarError` for an unknown preset or an unsupported size.
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
        raise MedvarError(f"The preset {name} supports images of {sizes} pixels per side, not {image_size}.")
    return replace(preset, image_size=image_size, schedule=_SCHEDULES[image_size // factor])


def _resolution(image_size: int) -> ResolutionConfig:
    if image_size not in RESOLUTION_TOKENIZERS:
        sizes = ", ".join(map(str, RESOLUTION_TOKENIZERS))
        raise MedvarError(f"The preset resolution supports images of {sizes} pixels per side, not {image_size}.")
    return RESOLUTION_TOKENIZERS[image_size]


def with_masks(config: ResolutionConfig, structures: Structures) -> ResolutionConfig:
    """The same tokenizer for pairs of image and mask, with additional scales that encode the mask.

    The directions of M structures and the background are farthest apart as a simplex, which needs M channels.
    """
    sides = MASK_SIDES[config.image_size]
    schedule = tuple(sorted((*config.schedule, *sides)))
    return replace(
        config,
        schedule=schedule,
        feature_channels=max(config.feature_channels, _MASK_FEATURES),
        structures=tuple(one.name for one in structures),
        colours=tuple(one.colour for one in structures),
        mask_scales=tuple(schedule.index(side) for side in sides),
        mask_channels=min(_MASK_CHANNELS, len(structures)),
    )


def transformer_preset(
    name: str, tokenizer: TokenizerConfig | ResolutionConfig, labels: tuple[int, ...]
) -> TransformerConfig:
    """The transformer configuration of a preset for a tokenizer; ``labels`` are the numbers of names per factor."""
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
