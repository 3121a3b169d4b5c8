"""The training index that a bundle carries: the same gate without torch, and without anything it should not tell."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.centring import centred
from medvar_engine.encoders.descriptor import DescriptorEncoder
from medvar_engine.encoders.image_source import windowed
from medvar_engine.encoders.onnx_encoder import OnnxEncoder
from medvar_engine.encoders.simclr import SimCLREncoder
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.planted_copies import plant
from medvar_engine.memorisation.gate import Gate
from medvar_engine.memorisation.training_index import ENCODER, FILES, GATE, INDEX, pack_index, pseudonym, read_index
from medvar_engine.types import FloatArray

KEY = b"kept by the owner"
Slices = Callable[..., FloatArray]
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def graph(simclr_file: Path) -> bytes:
    from medvar_export.encoder_graph import encoder_graph

    return encoder_graph(SimCLREncoder.load(simclr_file))


@pytest.fixture(scope="module")
def gate(graph: bytes, simclr_file: Path, training: SliceDataset) -> Gate:
    encoder = OnnxEncoder(graph, SimCLREncoder.load(simclr_file).preprocessing, name="simclr")
    images = training.batch(range(len(training)))[:, 0]
    shown = (images, windowed(images, 0.15, 0.8))
    embeddings = np.concatenate([encoder.encode(centred(one)) for one in shown])
    return Gate(encoder, embeddings, [row.patient for row in training.rows], threshold=0.2)


@pytest.fixture(scope="module")
def files(gate: Gate, graph: bytes) -> Files:
    return pack_index(gate, graph, key=KEY)


def test_the_gate_that_is_read_flags_the_same(
    gate: Gate, files: Files, training: SliceDataset, slices_of: Slices
) -> None:
    """Breaks for `generate` and the plugin: they must withhold what the evaluation flagged."""
    assert set(files) == set(FILES)
    images = np.concatenate([plant(training.batch([3, 40, 77])[:, 0], "shifted", 0), slices_of(60, 6)])
    before, after = gate.check(images), read_index(files.__getitem__, threads=1).check(images)
    np.testing.assert_allclose(after.distances, before.distances, atol=2e-3)
    np.testing.assert_array_equal(after.flagged, before.flagged)
    assert after.patients == tuple(pseudonym(patient, KEY) for patient in before.patients)
    exact = read_index(files.__getitem__).check(training.batch([5])[:, 0])
    assert exact.distances[0] < 0.01


def test_it_tells_nobody_who_was_trained_on(gate: Gate, graph: bytes, files: Files) -> None:
    """Breaks for patients: whoever has the bundle must not read, nor find by trying names, who is in it."""
    assert files == pack_index(gate, graph, key=KEY)
    again = pack_index(gate, graph)
    assert again[GATE] != files[GATE]
    for one in (files, again):
        assert not any(patient.encode() in content for patient in set(gate.patients) for content in one.values())
    embeddings = np.load(io.BytesIO(files[INDEX]), allow_pickle=False)
    assert embeddings.dtype == np.float16
    assert embeddings.shape == gate.embeddings.shape
    # Rows are ordered by pseudonym: their place says nothing of whose they are.
    whose = sorted(pseudonym(patient, KEY) for patient in gate.patients)
    assert list(read_index(files.__getitem__).patients) == whose


def test_an_encoder_that_is_not_the_gates(gate: Gate, graph: bytes) -> None:
    """Breaks for exports: an index of one encoder with the file of another flags at random."""
    with pytest.raises(MedvarError, match="as ONNX"):
        pack_index(gate, graph + b"\0")
    descriptor = DescriptorEncoder()
    with pytest.raises(MedvarError, match="as ONNX"):
        pack_index(Gate(descriptor, descriptor.encode(np.zeros((1, 32, 32), np.float32)), ["ann"], 0.2), graph)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 99},
        {"schema_version": None},
        {"threshold": "low"},
        {"threshold": float("nan")},
        {"threshold": -1},
        {"patients": {"a": 10**12}},
        {"patients": {"a": -3}},
        {"patients": {}},
        {"patients": [["a", 3]]},
        {"encoder": {}},
        {"encoder": {"name": "x", "preprocessing": {"size": 10**9}}},
        {"sha256": {}},
        {"sha256": {INDEX: "0" * 64, ENCODER: "0" * 64}},
    ],
)
def test_a_changed_gate_json(files: Files, change: dict[str, object]) -> None:
    """Breaks for bundles from strangers: a message, not a traceback, and not all of this computer's memory."""
    content = json.dumps({**json.loads(files[GATE]), **change}).encode()
    with pytest.raises(MedvarError):
        read_index({**files, GATE: content}.__getitem__)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff"])
def test_a_gate_json_that_is_none(files: Files, content: bytes) -> None:
    """Breaks for downloads that were cut off."""
    with pytest.raises(MedvarError, match=r"gate\.json"):
        read_index({**files, GATE: content}.__getitem__)


def test_changed_files_are_not_used(files: Files) -> None:
    """Breaks for safety: an index with an object array would be a pickle."""
    for name in (INDEX, ENCODER):
        with pytest.raises(MedvarError, match=f"{name}.*sha256"):
            read_index({**files, name: files[name][:-1] + b"!"}.__getitem__)
    for array in (np.zeros((3, 32)), np.zeros(4, np.float16), np.full((96, 32), np.nan, np.float16)):
        content = io.BytesIO()
        np.save(content, array)
        values = json.loads(files[GATE])
        values["sha256"][INDEX] = hashlib.sha256(content.getvalue()).hexdigest()
        with pytest.raises(MedvarError, match="finite float16"):
            read_index({**files, INDEX: content.getvalue(), GATE: json.dumps(values).encode()}.__getitem__)


def test_the_gate_needs_no_torch() -> None:
    """Breaks for the plugin and `generate`, which are installed without it, and for their start."""
    heavy = "{'torch', 'onnxruntime', 'pyarrow'}"
    code = f"import sys, medvar_engine.memorisation.training_index; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
