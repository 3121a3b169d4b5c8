"""A run that fits a test: 16×16 slices of five invented people, and a preset small enough for seconds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from invented_facts import invented_facts
from rich.console import Console

from medvar_engine.data.shards import ShardWriter
from medvar_engine.models import presets
from medvar_engine.models.resolution_tokenizer import ResolutionConfig
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.weight_files import write_tensors
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.stages import refiner_stage
from medvar_engine.value_range import encode

SIZE = 16
TINY_RESOLUTION = ResolutionConfig(
    SIZE, (1, 2, 3, 4), 32, feature_channels=12, patch=4, margin=2, refiner_widths=(8, 8), refiner_blocks=1
)
TINY = TokenizerConfig(SIZE, (1, 2, 3, 4), 128, 4, (8, 16), res_blocks=1, groups=4, patch=2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are too small for more
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.TOKENIZERS, "demo", TINY)
    monkeypatch.setitem(presets.RESOLUTION_TOKENIZERS, 128, TINY_RESOLUTION)
    monkeypatch.setattr(refiner_stage, "FITTED_ON", 200)


@pytest.fixture
def console() -> Console:
    """Remarks of a run; `console.file` holds them."""
    return Console(file=io.StringIO(), width=1000)


def write_slices(folder: Path, held_out: str = "MR", size: int = SIZE) -> Path:
    """Bright squares: four people with CT of the chest, and one with MR of the brain; one modality is held out."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder, size) as writer:
        for person in range(5):
            for _ in range(4):
                image = rng.uniform(-1, -0.9, (size, size)).astype(np.float32)
                top, left = rng.integers(1, size // 2, 2)
                image[top : top + 6, left : left + 6] = rng.uniform(0, 1)
                modality, region = ("MR", "brain") if person == 4 else ("CT", "chest")
                writer.add(
                    encode(image)[None],
                    [invented_facts(f"{modality}-{person}", modality=modality, region=region)],
                )
        writer.finish({person: "test" if person.startswith(held_out) else "train" for person in writer.strata})
    return folder


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Prepared slices: CT to train on, MR held out."""
    return write_slices(tmp_path / "slices")


@pytest.fixture
def other_slices() -> Callable[..., Path]:
    """Prepared slices as one wants them."""
    return write_slices


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """An untrained tokenizer of the tiny preset."""
    from medvar_engine.models.tokenizer import Tokenizer
    from medvar_engine.models.weight_files import save_tokenizer

    torch.manual_seed(0)
    save_tokenizer(tmp_path / "tokenizer.safetensors", Tokenizer(TINY))
    return tmp_path / "tokenizer.safetensors"


@pytest.fixture
def resolution_file(tmp_path: Path) -> Path:
    """A tokenizer of resolutions with random patches."""
    from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
    from medvar_engine.models.weight_files import save_tokenizer

    torch.manual_seed(0)
    model = ResolutionTokenizer(TINY_RESOLUTION)
    for buffer in (*model.quantizer.state_dict().values(),):
        buffer.normal_(std=0.3)
    save_tokenizer(tmp_path / "resolution.safetensors", model)
    return tmp_path / "resolution.safetensors"


@pytest.fixture
def feature_network_file(tmp_path: Path) -> Path:
    """A VGG of two blocks, untrained."""
    torch.manual_seed(0)
    layers = {0: torch.nn.Conv2d(3, 4, 3), 2: torch.nn.Conv2d(4, 4, 3), 5: torch.nn.Conv2d(4, 8, 3)}
    tensors = {f"features.{i}.{name}": t for i, layer in layers.items() for name, t in layer.state_dict().items()}
    write_tensors(tmp_path / "vgg.safetensors", tensors)
    return tmp_path / "vgg.safetensors"


@pytest.fixture
def make_config(
    slices: Path, tokenizer_file: Path, resolution_file: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Six steps of two images, validated and kept every three; keywords change the settings."""

    def make(**changes: object) -> TrainConfig:
        trained = resolution_file if changes.get("preset") == "resolution" else tokenizer_file
        values: dict[str, object] = {
            "stage": "tokenizer",
            "data": slices,
            "out": tmp_path / "run",
            "tokenizer": trained if changes.get("stage") == "transformer" else None,
            "steps": 6,
            "batch_size": 2,
            "warmup": 2,
            "log_every": 1,
            "validate_every": 3,
            "validate_slices": 3,
            "restart_every": 2,
            "variants": 2,
            "seed": 3,
            "device": "cpu",
            "precision": "float32",
        }
        return TrainConfig(**(values | changes))  # type: ignore[arg-type]

    return make
