"""Sets of the tiny model, in units of four images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.request import Sampling
from medvar_engine.sets.make_set import Resources, make_set
from medvar_engine.sets.mixture import Component, Mixture
from medvar_engine.sets.set_manifest import SetManifest

MakeSet = Callable[..., SetManifest]


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    """Three chests to one brain, each with its own sampling."""
    chest, brain = Condition("CT", "chest", "axial"), Condition("MR", "brain")
    return Mixture((Component(chest, Sampling(), 5, 3.0), Component(brain, Sampling(guidance=0.0, top_k=9), 100, 1.0)))


@pytest.fixture
def make(bundle: Bundle, mixture: Mixture) -> MakeSet:
    """`make_set`, of ten images on the CPU unless said otherwise."""

    def run(
        folder: Path, mixture: Mixture = mixture, count: int = 10, bundle: Bundle = bundle, **how: Any
    ) -> SetManifest:
        computing = Resources("cpu", **{name: how.pop(name) for name in ("batch", "workers", "cluster") if name in how})
        return make_set(folder, mixture, count, bundle, **{"computing": computing, "unit_images": 4} | how)

    return run
