from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medvar_engine.conditions import LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.presets import transformer_preset
from medvar_engine.models.pretrained import start_transformer
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import load_tokenizer, load_transformer, save_transformer
from medvar_engine.train.__main__ import main
from medvar_engine.train.config import TrainConfig, config_to_dict
from medvar_engine.train.dry_run import plan

MakeConfig = Callable[..., TrainConfig]


def flops_by_hand(config: TransformerConfig, images: int) -> float:
    """Two operations a weight and token, and the two products of attention, of which scale k sees scales 0…k."""
    model = Transformer(config)
    schedule, width, depth = model.schedule, config.width, config.depth
    tokens = schedule.tokens
    blocks = depth * tokens * (4 * width**2 + 2 * config.mlp_ratio * width**2)
    seen = sum(n * end for n, end in zip(schedule.token_counts, schedule.offsets[1:], strict=True))
    attention = depth * 2 * seen * width
    head = tokens * width * config.vocabulary
    features = (tokens - 1) * config.latent_channels * width
    modulation = 6 * width**2 + 2 * width**2  # of the image, not of each token; shared among the blocks
    return 3 * 2 * images * (blocks + attention + head + features + modulation)


def test_operations_are_those_counted_by_hand(make_config: MakeConfig) -> None:
    """A cluster would be asked for the wrong number of hours."""
    config = make_config(stage="transformer", batch_size=4)
    assert config.tokenizer is not None
    shape = transformer_preset("demo", load_tokenizer(config.tokenizer).config, (1, 1, 1))
    found = plan(config)
    assert found.flops == pytest.approx(flops_by_hand(shape, 4), rel=0.01)
    assert found.parameters == sum(p.numel() for p in Transformer(shape).parameters())
    assert found.weight_bytes == 20 * found.parameters
    assert found.hours(1e-3) == pytest.approx(found.flops * config.steps / 1e9 / 3600)
    assert plan(replace(config, recompute=True)).flops > found.flops
    coarse = flops_by_hand(replace(shape, schedule=shape.schedule[:2]), 12)
    for accumulate in (1, 2):
        more = plan(replace(config, coarse_slices=12, accumulate=accumulate))
        assert more.flops - found.flops == pytest.approx(coarse, rel=0.01)
    assert plan(replace(config, coarse_slices=12)).activation_bytes > 1.2 * found.activation_bytes


def test_parts_and_recomputing_take_less_memory(make_config: MakeConfig) -> None:
    """The advice for a card that is too small would be wrong."""
    config = make_config(stage="transformer", batch_size=8)
    whole = plan(config).activation_bytes
    assert plan(replace(config, accumulate=4)).activation_bytes == pytest.approx(whole / 4, rel=0.05)
    assert plan(replace(config, recompute=True)).activation_bytes < whole / 3
    with pytest.raises(MedvarError, match="batch_size 2"):
        plan(replace(config, batch_size=2, accumulate=4))


def test_frozen_weights_take_less_memory(make_config: MakeConfig, tmp_path: Path) -> None:
    """One would rent a larger card than fine-tuning needs, or believe that it does not fit the own one."""
    config = make_config(stage="transformer", factors=("modality", "region"))
    assert config.tokenizer is not None
    shape = transformer_preset("demo", load_tokenizer(config.tokenizer).config, (1, 1))
    base = tmp_path / "transformer.safetensors"
    save_transformer(base, Transformer(shape), LabelSpace(modality=("MR",), region=("brain",)))
    tuned, full = (plan(replace(config, init=base, lora_rank=rank)) for rank in (2, 0))
    names = LabelSpace(modality=("CT",), region=("chest",))
    model = start_transformer(*load_transformer(base), names, 2)
    counts = [[p.numel() for p in model.parameters() if p.requires_grad == learns] for learns in (True, False)]
    learning, still = map(sum, counts)
    assert (tuned.learning, tuned.parameters) == (learning, learning + still)
    assert tuned.weight_bytes == 20 * learning + 8 * still
    assert tuned.weight_bytes < full.weight_bytes / 2
    assert "M are trained" in tuned.describe()
    assert "M are trained" not in full.describe()


def test_a_decoder_alone_takes_less_memory(make_config: MakeConfig) -> None:
    """Encoder and codebook have neither gradients nor moments when the decoder alone learns."""
    config = make_config(tokenizer=make_config(stage="transformer").tokenizer)
    tokenizer = load_tokenizer(config.tokenizer or Path())
    decoding = (tokenizer.decoder, tokenizer.post_quant_conv, tokenizer.linear_out)
    learning = sum(p.numel() for part in decoding if part is not None for p in part.parameters())
    whole, decoder = plan(config), plan(replace(config, decoder_only=True))
    assert whole.learning == whole.parameters == decoder.parameters
    assert decoder.learning == learning
    assert decoder.weight_bytes == 8 * decoder.parameters + 12 * learning
    assert decoder.activation_bytes < whole.activation_bytes


def test_a_dry_run_starts_nothing(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """One would learn what a run costs by running it."""
    config = make_config()
    arguments = [f"{name}={value}" for name, value in config_to_dict(config).items() if isinstance(value, int | str)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--dry-run", "--tflops", "0.05"])
    assert ended.value.code == 0
    describe = capsys.readouterr().out
    for expected in ("M parameters, 16 training slices", "TFLOP per step", "GiB", "hours at 0.05"):
        assert expected in describe
    assert not config.out.exists()
