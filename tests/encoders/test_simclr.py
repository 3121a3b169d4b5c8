"""The encoder that is trained on the user's own slices: repeatable, its own judge of files, and the same as ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.simclr import SimCLRConfig, SimCLREncoder
from medvar_engine.encoders.simclr_training import SimCLRTraining, contrastive_loss, trained_simclr
from medvar_engine.errors import MedvarError
from medvar_engine.models.weight_files import read_tensors, write_tensors
from medvar_engine.storage import sha256

SHORT = SimCLRTraining(steps=3, batch_size=6)
TINY = SimCLRConfig(16, (8, 16), 8)


def test_the_same_seed_gives_the_same_encoder(training: SliceDataset, tmp_path: Path) -> None:
    """Breaks for comparisons: a figure is only comparable under the same sha256, which must come again."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    losses: list[float] = []
    first = trained_simclr(training, tmp_path / "a.safetensors", SHORT, TINY, lambda *told: losses.append(told[2]))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    second = trained_simclr(training, tmp_path / "b.safetensors", SHORT, TINY)
    other = trained_simclr(training, tmp_path / "c.safetensors", SimCLRTraining(3, 6, seed=1), TINY)
    assert first.sha256 == second.sha256 == sha256(tmp_path / "a.safetensors")
    assert other.sha256 != first.sha256
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_it_is_trained_once(training: SliceDataset, tmp_path: Path) -> None:
    """Breaks for a second evaluation, which would train for minutes again; and for other data, which must train."""
    path, steps = tmp_path / "simclr.safetensors", []

    def count(step: int, total: int, loss: float) -> None:
        steps.append(step)

    trained_simclr(training, path, SHORT, TINY, count)
    trained_simclr(training, path, SHORT, TINY, count)
    assert len(steps) == 3
    trained_simclr(training, path, SHORT, SimCLRConfig(16, (8, 16), 16), count)
    assert len(steps) == 6
    path.write_bytes(path.read_bytes()[:100])
    trained_simclr(training, path, SHORT, TINY, count)
    assert len(steps) == 9


def test_training_learns_to_distinguish_slices(held_out: SliceDataset, simclr_file: Path) -> None:
    """Breaks for every figure of the default encoder: untrained features would pass all other tests."""
    from medvar_engine.evaluate.images.planted_copies import plant

    images = held_out.batch(range(len(held_out)))[:, 0]
    encoder = SimCLREncoder.load(simclr_file)
    found = (encoder.encode(plant(images, "shifted", 0)) @ encoder.encode(images).T).argmax(axis=1)
    assert (found == np.arange(len(images))).mean() > 0.5


def test_the_loss_is_that_of_the_paper() -> None:
    """Breaks for training: with partners mixed up it would still fall, and learn nothing."""
    rows = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    terms = []
    for i in range(6):
        similar = torch.exp(rows @ rows[i] / 0.5)
        terms.append(-torch.log(similar[(i + 3) % 6] / (similar.sum() - similar[i])))
    torch.testing.assert_close(contrastive_loss(rows, 0.5), torch.stack(terms).mean())


def test_held_out_patients_are_not_trained_on(held_out: SliceDataset, tmp_path: Path) -> None:
    """Breaks for memorisation: an encoder that knows the held-out people makes copies seem far."""
    with pytest.raises(MedvarError, match="'train'"):
        trained_simclr(held_out, tmp_path / "a.safetensors", SHORT, TINY)
    with pytest.raises(MedvarError, match="2 slices per batch"):
        SimCLRTraining(batch_size=1)


def test_files_that_are_not_simclr_encoders_are_refused(simclr_file: Path, tmp_path: Path) -> None:
    """Breaks for mistaken and damaged files: the message names the file and what is wrong."""
    tensors, metadata = read_tensors(simclr_file)
    path = tmp_path / "bad.safetensors"
    short = dict(list(tensors.items())[1:])
    garbled = metadata["medvar"].replace('"dimension": 32', '"dimension": "wide"')
    for weights, about in (
        (tensors, None),
        (tensors, {"medvar": '{"kind": "tokenizer"}'}),
        (tensors, {"medvar": garbled}),
        (short, metadata),
    ):
        write_tensors(path, weights, about)
        with pytest.raises(MedvarError, match=r"bad\.safetensors"):
            SimCLREncoder.load(path)
