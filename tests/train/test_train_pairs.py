"""A model of pairs is learnt from slices with masks, and from no others; the recipe of one works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invented_facts import invented_facts
from rich.console import Console
from tiny_pairs import STRUCTURES, make_pairs

import medvar_engine.train
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.conditions import Condition
from medvar_engine.data.masks.mask_rule import mask_rule
from medvar_engine.data.shards import ShardWriter
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.masks.structures import structures_of
from medvar_engine.metric_log import read_log
from medvar_engine.models import presets
from medvar_engine.models.resolution_tokenizer import ResolutionConfig
from medvar_engine.models.weight_files import load_tokenizer, load_transformer
from medvar_engine.request import Request
from medvar_engine.train.config import TrainConfig, load_config
from medvar_engine.train.dry_run import plan
from medvar_engine.train.run_training import run
from medvar_engine.train.stages import refiner_stage
from medvar_engine.value_range import encode

RECIPES = Path(medvar_engine.train.__file__).parent / "recipes"
PAGE = Path(__file__).parents[2] / "medvar_engine" / "train" / "recipes" / "pairs.md"  # not in the wheel
SHORT = ("steps=2", "batch_size=4", "validate_every=2", "device=cpu")
ALONE = ResolutionConfig(16, (1, 2, 4), 32, feature_channels=12, patch=4, margin=2, refiner_widths=(8, 8))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.RESOLUTION_TOKENIZERS, 128, ALONE)
    monkeypatch.setitem(presets.MASK_SIDES, 16, (3,))
    monkeypatch.setattr(refiner_stage, "FITTED_ON", 1500)


def write_pairs(folder: Path, names: tuple[str, ...] = STRUCTURES) -> Path:
    """Four people, one of whom is tested."""
    with ShardWriter(folder, 16, structures=structures_of(names)) as writer:
        for person in range(4):
            pairs = make_pairs(12, person)
            facts = invented_facts(f"p{person}", region="abdomen", low=-160.0, high=240.0)
            masks = pairs[:, 1].astype(np.uint8) if names else None
            writer.add(encode(pairs[:, 0]), [facts] * len(pairs), masks)
        writer.finish({"p0": "train", "p1": "train", "p2": "train", "p3": "test"})
    return folder


def config(slices: Path, out: Path, **changes: object) -> TrainConfig:
    settings = {
        "stage": "tokenizer",
        "preset": "resolution",
        "masks": True,
        "data": slices,
        "out": out,
        "steps": 20,
        "batch_size": 8,
        "validate_every": 10,
        "ema": 0.5,
        "warmup": 2,
        "device": "cpu",
    }
    return TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]


def metrics(out: Path) -> dict[str, float]:
    """The last value of each metric of a run, by its name."""
    return {str(metric): points[-1][1] for metric, points in read_log(out / "log.csv").items()}


def test_pairs_are_learned_and_generated(tmp_path: Path, console: Console) -> None:
    """From slices with masks to an image with its mask, and one to a given mask."""
    slices = write_pairs(tmp_path / "slices")
    tokenizer = run(config(slices, tmp_path / "tokenizer"), console=console)
    learnt = load_tokenizer(tokenizer).config
    assert learnt.structures == STRUCTURES  # type: ignore[union-attr]
    found = metrics(tmp_path / "tokenizer")
    assert 0 < found["mask loss"] < 1
    small = {"depth": 1, "width": 16, "heads": 1}
    of_tokens = config(slices, tmp_path / "transformer", stage="transformer", masks=False, tokenizer=tokenizer, **small)
    transformer = run(of_tokens, console=console)
    assert "held-out loss, scale 3" in metrics(tmp_path / "transformer")
    generator = Generator(TorchBackend.load(tokenizer, transformer))
    masks = make_pairs(2, 9)[:, 1].astype(np.uint8)
    made = generator.finish(generator.from_masks(masks, [Request(Condition("CT"), seed) for seed in (0, 1)]))
    assert (generator.pairs(made)[1] == masks).mean() > 0.8


def test_a_dry_run_knows_pairs(tmp_path: Path) -> None:
    """The memory that is told before a run is that of the run."""
    slices = write_pairs(tmp_path / "slices")
    more, less = (plan(config(slices, tmp_path / "out", masks=masks)) for masks in (True, False))
    assert more.activation_bytes > less.activation_bytes


def test_mismatched_settings_are_refused(tmp_path: Path, console: Console) -> None:
    """Slices without masks, or with others, would teach something else."""
    slices, plain = write_pairs(tmp_path / "slices"), write_pairs(tmp_path / "plain", ())
    with pytest.raises(MedvarError, match="has no masks to train on"):
        run(config(plain, tmp_path / "out"), console=console)
    tokenizer = run(config(slices, tmp_path / "tokenizer", steps=1), console=console)
    other = write_pairs(tmp_path / "other", ("disc", "bar"))
    for data in (plain, other):
        with pytest.raises(MedvarError, match="has masks of square, bar, but those of"):
            run(config(data, tmp_path / "out", tokenizer=tokenizer), console=console)
        with pytest.raises(MedvarError, match="has masks of square, bar, but those of"):
            run(config(data, tmp_path / "out", stage="transformer", masks=False, tokenizer=tokenizer), console=console)
    with pytest.raises(MedvarError, match="masks needs a tokenizer of resolutions"):
        load_config(None, ["stage=tokenizer", f"data={slices}", "out=x", "masks=true", "preset=demo"])


def test_the_recipe_trains(tmp_path: Path, console: Console) -> None:
    slices = write_pairs(tmp_path / "slices")
    first = load_config(RECIPES / "pairs-tokenizer.toml", [*SHORT, f"data={slices}", f"out={tmp_path / 'tokenizer'}"])
    tokenizer = run(first, console=console)
    assert load_tokenizer(tokenizer).config.structures  # type: ignore[union-attr]
    of_tokens = [f"data={slices}", f"out={tmp_path / 'transformer'}", f"tokenizer={tokenizer}"]
    small = ("depth=1", "width=16", "heads=1")
    second = load_config(RECIPES / "pairs-transformer.toml", [*SHORT, *small, *of_tokens])
    labels = load_transformer(run(second, console=console))[1]
    # The guide names all three, and without a modality masks could not be written as DICOM SEG.
    assert (labels.modality, labels.region, labels.plane) == (("CT",), ("abdomen",), ("axial",))


def test_the_recipe_is_described() -> None:
    """Nobody may take a model of two patients for more than it is; and its file of label maps must be one."""
    text = PAGE.read_text()
    assert "A model that saw one patient, or two, makes copies of them." in " ".join(text.split())


def test_its_label_maps_are_named(tmp_path: Path) -> None:
    text = PAGE.read_text()
    (tmp_path / "masks.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert mask_rule(str(tmp_path / "masks.yaml")).values[3] == "kidney"


@pytest.mark.parametrize("name", ["pairs-tokenizer.toml", "pairs-transformer.toml"])
def test_its_settings_are_known(name: str, tmp_path: Path) -> None:
    load_config(RECIPES / name, [f"data={tmp_path}", f"out={tmp_path}", f"tokenizer={tmp_path / 't.safetensors'}"])
