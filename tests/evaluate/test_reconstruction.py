from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invented_facts import invented_facts

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import find_bundle, read_bundle
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import ShardWriter
from medvar_engine.evaluate.reconstruction import measure_reconstruction
from medvar_engine.generate.generator import Generator
from medvar_engine.value_range import encode


@pytest.fixture
def held_out(tmp_path: Path) -> SliceDataset:
    """Six slices of two patients: discs."""
    rows, columns = np.mgrid[:128, :128]
    with ShardWriter(tmp_path / "slices", 128) as writer:
        for i in range(6):
            inside = np.hypot(rows - 60 - i, columns - 64) < 40 + i
            writer.add(encode(np.where(inside, 0.3, -1).astype(np.float32))[None], [invented_facts(f"p{i % 2}")])
        writer.finish({"p0": "test", "p1": "test"})
    return SliceDataset(tmp_path / "slices", "test")


def test_reconstruction_and_the_loss_of_drawing_are_measured(held_out: SliceDataset) -> None:
    """A model whose finest scale is drawn blindly gives wool, however good its reconstructions are."""
    bundle = read_bundle(find_bundle("demo"))
    generator = Generator(OnnxBackend(bundle, device="cpu"))
    found = measure_reconstruction(generator, held_out, bundle.sampling, count=4)
    assert found.slices == 4
    assert found.full.value is not None
    assert found.full.value > 20
    assert len(found.by_scale) == len(bundle.schedule)
    assert list(found.by_scale[:6]) == sorted(found.by_scale[:6])  # every scale adds to the one before
    assert found.finest_drawn.value is not None
    assert 0 < found.finest_drawn.value < 10
    assert measure_reconstruction(generator, held_out, bundle.sampling, count=4) == found
