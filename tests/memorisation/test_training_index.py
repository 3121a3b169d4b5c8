"""The training index that a bundle carries: the same gate without torch, and without anything it should not tell."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.image_source import PreparedImages
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.copies import fit_projection
from medvar_engine.evaluate.images.planted_copies import plant
from medvar_engine.memorisation.edge_maps import edge_map
from medvar_engine.memorisation.gate import Gate
from medvar_engine.memorisation.packed_maps import pack
from medvar_engine.memorisation.training_index import (
    FILES,
    GATE,
    INDEX,
    PROJECTION,
    pack_index,
    pseudonym,
    read_index,
)
from medvar_engine.types import FloatArray

KEY = b"kept by the owner"
Slices = Callable[..., FloatArray]
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def gate(training: SliceDataset) -> Gate:
    projection = fit_projection(PreparedImages(training))
    images = training.batch(range(len(training)))[:, 0]
    index = pack(np.array([edge_map(image) for image in images]))
    return Gate(projection, index, [row.patient for row in training.rows], (1.5, 1.8), 0.9)


@pytest.fixture(scope="module")
def files(gate: Gate) -> Files:
    return pack_index(gate, key=KEY)


def test_the_gate_that_is_read_flags_the_same(
    gate: Gate, files: Files, training: SliceDataset, slices_of: Slices
) -> None:
    """Breaks for `generate` and the plugin: they must withhold what the evaluation flagged."""
    assert set(files) == set(FILES)
    images = np.concatenate([plant(training.batch([3, 40, 77])[:, 0], "shifted", 0), slices_of(60, 6)])
    before, after = gate.check(images), read_index(files.__getitem__).check(images)
    np.testing.assert_allclose(after.distances, before.distances, rtol=1e-4)
    np.testing.assert_array_equal(after.flagged, before.flagged)
    assert after.patients == tuple(pseudonym(patient, KEY) for patient in before.patients)
    assert read_index(files.__getitem__).check(training.batch([5])[:, 0]).flagged.all()


def test_the_index_reveals_no_patients(gate: Gate, files: Files) -> None:
    """Breaks for patients: whoever has the bundle must not read, nor find by trying names, who is in it."""
    assert files == pack_index(gate, key=KEY)
    again = pack_index(gate)
    assert again[GATE] != files[GATE]
    for one in (files, again):
        assert not any(patient.encode() in content for patient in set(gate.patients) for content in one.values())
    rows = np.load(io.BytesIO(files[INDEX]), allow_pickle=False)
    assert (rows.dtype, rows.shape) == (np.uint8, gate.index.shape)
    # Rows are ordered by pseudonym: their place says nothing of whose they are.
    whose = sorted(pseudonym(patient, KEY) for patient in gate.patients)
    assert list(read_index(files.__getitem__).patients) == whose


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 99},
        {"schema_version": None},
        {"threshold": "low"},
        {"threshold": float("nan")},
        {"threshold": -1},
        {"levels": [1, 1, 1]},
        {"levels": [1, 0]},
        {"levels": [1, float("inf")]},
        {"levels": {"a": 1, "b": 1}},
        {"levels": None},
        {"patients": {"a": 10**12}},
        {"patients": {"a": -3}},
        {"patients": {}},
        {"patients": [["a", 3]]},
        {"sha256": {}},
        {"sha256": {INDEX: "0" * 64, PROJECTION: "0" * 64}},
    ],
)
def test_a_changed_gate_json(files: Files, change: dict[str, object]) -> None:
    """Breaks for bundles from strangers: a message, not a traceback, and not all of this computer's memory."""
    content = json.dumps({**json.loads(files[GATE]), **change}).encode()
    with pytest.raises(MedvarError):
        read_index({**files, GATE: content}.__getitem__)


def test_an_earlier_index_says_what_to_do(files: Files) -> None:
    """Breaks for owners of older bundles, whose copies would pass, or who would not know why nothing is written."""
    for version in (1, 2):
        content = json.dumps({**json.loads(files[GATE]), "schema_version": version}).encode()
        with pytest.raises(MedvarError, match="medvar gate BUNDLE"):
            read_index({**files, GATE: content}.__getitem__)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff"])
def test_an_invalid_gate_json_is_refused(files: Files, content: bytes) -> None:
    """Breaks for downloads that were cut off."""
    with pytest.raises(MedvarError, match=r"gate\.json"):
        read_index({**files, GATE: content}.__getitem__)


def test_changed_files_are_not_used(files: Files) -> None:
    """Breaks for safety: an index with an object array would be a pickle."""
    for name in (INDEX, PROJECTION):
        with pytest.raises(MedvarError, match=f"{name}.*sha256"):
            read_index({**files, name: files[name][:-1] + b"!"}.__getitem__)
    for name, array in (
        (INDEX, np.zeros((3, 32))),
        (INDEX, np.zeros((3, 32), np.uint8)),
        (INDEX, np.zeros(4, np.uint8)),
        (PROJECTION, np.zeros(4, np.float16)),
        (PROJECTION, np.full(4, np.nan, np.float16)),
        (PROJECTION, np.zeros((4, 4), np.float32)),
    ):
        content = io.BytesIO()
        np.save(content, array)
        values = json.loads(files[GATE])
        values["sha256"][name] = hashlib.sha256(content.getvalue()).hexdigest()
        with pytest.raises(MedvarError):
            read_index({**files, name: content.getvalue(), GATE: json.dumps(values).encode()}.__getitem__)


def test_the_gate_needs_no_torch() -> None:
    """Breaks for the plugin and `generate`, which are installed without it, and for their start."""
    heavy = "{'torch', 'onnxruntime', 'pyarrow'}"
    code = f"import sys, medvar_engine.memorisation.training_index; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
