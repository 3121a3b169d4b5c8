"""Invented people whose slices look alike, and an encoder trained on them in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medvar_engine.arrays import FloatArray
from medvar_engine.data.codes import encode
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.facts import SliceFacts
from medvar_engine.data.shards import ShardWriter

SIZE = 32


def draw_slices(person: int, count: int, size: int = SIZE) -> FloatArray:
    """Slices ``(count, size, size)`` through one smooth random body in air, that change slowly."""
    rng = np.random.default_rng(person)
    body = ndimage.gaussian_filter(rng.normal(size=(4 * count, size, size)), (4, 2, 2))[::4]
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = (x / rng.uniform(0.6, 0.8)) ** 2 + (y / rng.uniform(0.6, 0.8)) ** 2 < 1
    return np.where(inside, np.clip(body / body.std() * 0.4, -0.95, 1), -1).astype(np.float32)


def write_people(folder: Path, people: int = 8, slices: int = 8, held_out: int = 4) -> Path:
    """Prepared slices of ``people``, of whom the last ``held_out`` are not trained on."""
    with ShardWriter(folder, SIZE) as writer:
        for person in range(people):
            about = ("MR", "brain", "axial", "set", None, 1.0, 0.0, 100.0, "arbitrary", None)
            facts = SliceFacts(f"person-{person}", *about, "scan", "invented", "MIT", bytes(32))
            for image in draw_slices(person, slices):
                writer.add(encode(image)[None], [facts])
        names = [f"person-{person}" for person in range(people)]
        writer.finish({name: "train" if i < people - held_out else "test" for i, name in enumerate(names)})
    return folder


@pytest.fixture(scope="session")
def slices_of() -> Callable[..., FloatArray]:
    """Slices of an invented person, by number."""
    return draw_slices


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared slices of twenty people, eight of them held out."""
    return write_people(tmp_path_factory.mktemp("people") / "slices", people=20, held_out=8)


@pytest.fixture(scope="session")
def training(people: Path) -> SliceDataset:
    return SliceDataset(people, split="train")


@pytest.fixture(scope="session")
def held_out(people: Path) -> SliceDataset:
    return SliceDataset(people, split="test")


@pytest.fixture(scope="session")
def simclr_file(training: SliceDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder, trained in seconds."""
    import torch

    from medvar_engine.evaluate.simclr import SimCLRConfig
    from medvar_engine.evaluate.simclr_training import SimCLRTraining, trained_simclr

    torch.set_num_threads(1)  # the network is too small for more
    path = tmp_path_factory.mktemp("encoder") / "simclr.safetensors"
    trained_simclr(training, path, SimCLRTraining(steps=80, batch_size=32), SimCLRConfig(16, (16, 32), 32))
    return path
