"""A bundle is checked before anything in it is used."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvar_engine.bundle import read as rooms
from medvar_engine.bundle.read import (
    MANIFEST,
    Bundle,
    SliceType,
    find_bundle,
    manifest_digest,
    open_bundle,
    read_bundle,
    shipped_bundles,
    slice_type_to_dict,
)
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Request

SLICE_TYPES = (
    SliceType(Condition("CT", "chest", "axial"), 70, 3, 0.75, -1000.0, 400.0, "HU"),
    SliceType(Condition("CT", "chest", "coronal"), 90, 3, 0.8, -1000.0, 400.0, "HU"),
    SliceType(Condition("CT", "abdomen", "axial"), 40, 2, 0.7, -160.0, 240.0, "HU"),
    SliceType(Condition("MR", "brain", "axial"), 50, 5, None, 0.0, 1.0, "arbitrary"),
)
FILES = {"step.onnx": b"step", "decode.onnx": b"decode", "weights.data": b"more", "MODEL_CARD.md": "# Größe\n".encode()}
MANIFEST_VALUES: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "labels": {"modality": ["CT", "MR"], "region": ["abdomen", "brain", "chest"], "plane": ["axial", "coronal"]},
    "schedule": [1, 2, 4],
    "model": {
        "vocabulary": 24,
        "latent_channels": 4,
        "image_size": 16,
        "image_channels": 1,
        "depth": 2,
        "heads": 2,
        "head_dim": 8,
        "parameters": 1234,
    },
    "precision": "float32",
    "sampling": {"guidance": 1.5, "temperature": 1.0, "top_k": 0, "top_p": 0.96},
    "cells": [slice_type_to_dict(slice_type) for slice_type in SLICE_TYPES],
    "licence": "MIT",
    "attributions": ["nobody"],
    "training_data": "nobody",
    "parity": {"logits": 1e-6},
    "weights": "ab" * 32,
    "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
}
MANIFEST_VALUES["digest"] = manifest_digest(MANIFEST_VALUES)


def write(folder: Path, manifest: object = None) -> Path:
    """A folder like a bundle's; its graphs are no graphs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(MANIFEST_VALUES if manifest is None else manifest), encoding="utf-8")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write(tmp_path / "tiny"))


def changed(*path: str | int, to: object) -> dict[str, Any]:
    """The manifest with one value changed, and signed again."""
    values = copy.deepcopy(MANIFEST_VALUES)
    inner: Any = values
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return values if path == ("digest",) else values | {"digest": manifest_digest(values)}


def test_says_what_was_written(bundle: Bundle) -> None:
    """Labels, units and defaults of a model would be others than its author's."""
    assert (bundle.name, bundle.vocabulary, bundle.schedule.sides) == ("tiny", 24, (1, 2, 4))
    assert bundle.labels.region == ("abdomen", "brain", "chest")
    assert bundle.slice_types == SLICE_TYPES
    assert bundle.transformer == {"depth": 2, "heads": 2, "head_dim": 8}
    assert bundle.card == "# Größe\n"
    assert bundle.read("step.onnx") == b"step"


def test_a_card_that_is_not_text(tmp_path: Path) -> None:
    """It would end in a traceback; the rest of the bundle can still be used."""
    card = b"\xff\xfe"
    digests = MANIFEST_VALUES["sha256"] | {"MODEL_CARD.md": hashlib.sha256(card).hexdigest()}
    folder = write(tmp_path / "bundle", changed("sha256", to=digests))
    (folder / "MODEL_CARD.md").write_bytes(card)
    with pytest.raises(MedvarError, match=r"MODEL_CARD\.md is not text"):
        _ = read_bundle(folder).card


def test_digest_names_the_graphs(tmp_path: Path, bundle: Bundle) -> None:
    """A retouched model card would make all earlier images strangers, or another model's pass for this one's."""
    hashes = MANIFEST_VALUES["sha256"]
    other_card = read_bundle(write(tmp_path / "card", changed("sha256", to=hashes | {"MODEL_CARD.md": "0" * 64})))
    other_graph = read_bundle(write(tmp_path / "graph", changed("sha256", to=hashes | {"step.onnx": "0" * 64})))
    assert other_card.bundle_id == bundle.bundle_id
    assert other_graph.bundle_id != bundle.bundle_id


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "a folder"])
def test_a_damaged_file_is_not_used(bundle: Bundle, name: str, damage: str) -> None:
    """A download that broke off would crash the runtime, and a swapped graph would run."""
    path = bundle.path / name
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "changed":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        case "cut":
            path.write_bytes(content[:-1])
        case "a folder":
            path.mkdir()
    with pytest.raises(MedvarError, match=name):
        bundle.read(name)


def test_a_file_that_is_not_named_is_not_used(bundle: Bundle) -> None:
    """Whoever can add a file to a bundle could have it run."""
    (bundle.path / "extra.onnx").write_bytes(b"extra")
    with pytest.raises(MedvarError, match="not the file"):
        bundle.read("extra.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_refused(bundle: Bundle) -> None:
    """Opening a stranger's bundle would never end."""
    (bundle.path / "step.onnx").unlink()
    os.mkfifo(bundle.path / "step.onnx")
    with pytest.raises(MedvarError, match="regular file"):
        bundle.read("step.onnx")


BROKEN: dict[str, tuple[Callable[[str], bytes], str]] = {
    "empty": (lambda text: b"", "not JSON"),
    "cut short": (lambda text: text.encode()[: len(text) // 2], "not JSON"),
    "not text": (lambda text: b"\xff\xfe" + text.encode(), "not JSON"),
    "deeply nested": (lambda text: b"[" * 200_000, "not JSON"),
    "another version": (lambda text: json.dumps(changed("schema_version", to=2)).encode(), "format 2"),
    "a list": (lambda text: b"[]", "field"),
    "a number": (lambda text: b"7", "field"),
    "too large": (lambda text: text.encode() + b" " * rooms.MAX_MANIFEST_BYTES, "too large"),
    "a path upwards": (lambda text: json.dumps(changed("sha256", to={"../step.onnx": "0"})).encode(), "outside"),
    "an absolute path": (lambda text: json.dumps(changed("sha256", to={"/etc/passwd": "0"})).encode(), "outside"),
    "a drive": (lambda text: json.dumps(changed("sha256", to={"C:step.onnx": "0"})).encode(), "outside"),
    "a backslash": (lambda text: json.dumps(changed("sha256", to={"..\\step.onnx": "0"})).encode(), "outside"),
    "no name": (lambda text: json.dumps(changed("sha256", to={"": "0"})).encode(), "outside"),
    "a zero byte": (lambda text: json.dumps(changed("sha256", to={"a\0b": "0"})).encode(), "outside"),
    "a falling schedule": (lambda text: json.dumps(changed("schedule", to=[1, 4, 2])).encode(), "increasing"),
    "an unknown factor": (lambda text: json.dumps(changed("labels", "colour", to=["red"])).encode(), "colour"),
    "labels as text": (lambda text: json.dumps(changed("labels", "modality", to="CT")).encode(), "labels"),
    "top_p of 5": (lambda text: json.dumps(changed("sampling", "top_p", to=5)).encode(), "top_p"),
    "an unknown sampling": (lambda text: json.dumps(changed("sampling", "beam", to=5)).encode(), "beam"),
    "no vocabulary": (lambda text: json.dumps(changed("model", "vocabulary", to=0)).encode(), "vocabulary"),
    "infinitely many heads": (lambda text: json.dumps(changed("model", "heads", to=float("inf"))).encode(), "Infinity"),
    "a value changed": (lambda text: text.replace("MIT", "GPL").encode(), "changed after it was written"),
    "another digest": (lambda text: json.dumps(changed("digest", to="0" * 64)).encode(), "digest differs"),
    "a cell without a place": (lambda text: json.dumps(changed("cells", 0, to={})).encode(), "condition"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_manifest_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    """Somebody with a broken download would see a traceback, and a stranger's bundle could reach other files."""
    folder = write(tmp_path)
    spoil, says = BROKEN[damage]
    (folder / MANIFEST).write_bytes(spoil((folder / MANIFEST).read_text(encoding="utf-8")))
    with pytest.raises(MedvarError, match=says) as caught:
        read_bundle(folder)
    assert str(folder / MANIFEST) in str(caught.value)


@pytest.mark.parametrize("field", [name for name in MANIFEST_VALUES if name != "weights"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    """Whoever writes a bundle by another tool could not tell what it lacks."""
    values = {name: value for name, value in MANIFEST_VALUES.items() if name != field}
    values |= {} if field == "digest" else {"digest": manifest_digest(values)}
    with pytest.raises(MedvarError, match=field):
        read_bundle(write(tmp_path, values))


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    """A folder deleted meanwhile would be a traceback."""
    with pytest.raises(MedvarError, match="Cannot read"):
        read_bundle(tmp_path / "nowhere")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every value in a manifest."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in _places(inner, (*path, key)))]


@given(place=st.sampled_from(_places(MANIFEST_VALUES)[1:]), value=JSON)
def test_any_value_in_a_manifest_gives_at_most_an_error(place: tuple[str | int, ...], value: object) -> None:
    """A garbled or hostile manifest would crash napari with whatever exception it likes."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), changed(*place, to=value))
        with suppress(MedvarError):
            _use(read_bundle(path))


@given(position=st.integers(min_value=0), byte=st.integers(0, 255))
def test_a_changed_byte_of_a_manifest_is_noticed(position: int, byte: int) -> None:
    """One byte flipped on a disk would be a traceback, or pass for what the author said of the model."""
    with tempfile.TemporaryDirectory() as folder:
        whole = read_bundle(write(Path(folder)))
        path = Path(folder) / MANIFEST
        content = bytearray(path.read_bytes())
        content[position % len(content)] = byte
        path.write_bytes(content)
        with suppress(MedvarError):
            assert read_bundle(path.parent) == whole  # at most another space, or the same byte


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    """A manifest that another tool has laid out anew would be refused."""
    folder = write(tmp_path)
    shuffled = dict(sorted(MANIFEST_VALUES.items(), reverse=True))
    (folder / MANIFEST).write_text(json.dumps(shuffled, indent=3, ensure_ascii=False), encoding="utf-8")
    assert read_bundle(folder).weights == "ab" * 32


def _use(bundle: Bundle) -> None:
    """What the command line and the widget ask of a bundle before its graphs."""
    assert len(bundle.bundle_id) == 64
    assert f"{bundle.schedule} {bundle.labels.to_dict()} {', '.join(bundle.labels.modality)} {bundle.attributions}"
    for name in bundle.sha256:
        bundle.read(name)
    for condition in (
        Condition(),
        Condition("CT", "chest"),
        *(slice_type.condition for slice_type in bundle.slice_types),
    ):
        bundle.slice_type(condition)
        bundle.labels.encode(condition)
        Request(condition, 0, bundle.sampling)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Condition("CT", "chest", "axial"), SLICE_TYPES[0]),
        (Condition("CT", "chest"), SLICE_TYPES[1]),
        (Condition("CT"), SLICE_TYPES[1]),
        (Condition(region="abdomen"), SLICE_TYPES[2]),
        (Condition(), SLICE_TYPES[1]),
        (Condition("CT", "chest", dataset="some"), SLICE_TYPES[1]),
        (Condition("MR", "chest"), None),
        (Condition("MR", "brain", "sagittal"), None),
    ],
)
def test_a_condition_selects_its_slice_type(bundle: Bundle, asked: Condition, expected: SliceType | None) -> None:
    """A brain would be written with the pixel size of a chest, or a slice never seen would claim one."""
    assert bundle.slice_type(asked) == expected


def test_an_incomplete_condition_fits_several_slice_types(bundle: Bundle) -> None:
    """An image that may be CT or MR would be written in HU."""
    assert bundle.fitting(Condition("CT")) == (SLICE_TYPES[1], SLICE_TYPES[0], SLICE_TYPES[2])
    assert set(bundle.fitting(Condition())) == set(SLICE_TYPES)
    assert bundle.fitting(Condition("MR", "abdomen")) == ()


def test_finds_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`medvar generate` without a bundle, by name, by folder or by manifest would not find one."""
    monkeypatch.setattr(rooms, "_SHIPPED", tmp_path / "shipped")
    own = write(tmp_path / "own")
    assert find_bundle(own) == find_bundle(str(own / MANIFEST)) == own
    with pytest.raises(MedvarError, match="medvar export"):
        find_bundle()
    shipped = [write(tmp_path / "shipped" / name) for name in ("alpha", "beta")]
    (tmp_path / "shipped" / "empty").mkdir()
    assert shipped_bundles() == dict(zip(("alpha", "beta"), shipped, strict=True))
    assert find_bundle() == shipped[0]
    assert find_bundle("beta") == shipped[1]


@pytest.mark.parametrize("name", ["nowhere", "", "x" * 5000, "a\0b", "~nobody-of-this-name/bundle", "."])
def test_says_where_there_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A mistyped path would be a traceback, or silently another bundle."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedvarError, match="bundle"):
        find_bundle(name)


def test_a_folder_with_the_name_of_a_shipped_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever exports a model of this name here would use, evaluate or index the shipped one instead, unnoticed."""
    for place in ("shipped", "here"):
        write(tmp_path / place / "demo")
    monkeypatch.setattr(rooms, "_SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(MedvarError, match="a shipped bundle and of a folder here"):
        open_bundle("demo")
    assert open_bundle("./demo").path == Path("demo")
    assert open_bundle().path == tmp_path / "shipped" / "demo"
    monkeypatch.chdir(tmp_path / "shipped")
    assert open_bundle("demo").path == tmp_path / "shipped" / "demo"


def test_obsolete_fields_of_earlier_versions_are_ignored(tmp_path: Path) -> None:
    """A bundle of two transformers, or whose graph could leave tokens out, would not open any more."""
    fine = {"from_scale": 2, "depth": 1, "heads": 1, "head_dim": 8}
    values = {name: value for name, value in MANIFEST_VALUES.items() if name != "digest"}
    values |= {"fine": fine, "partial_scales": True}
    values["sha256"] = values["sha256"] | {"fine.onnx": hashlib.sha256(b"fine").hexdigest()}
    values["sampling"] = values["sampling"] | {"skip_settled": 0.25}
    values["digest"] = manifest_digest(values)
    older, now = read_bundle(write(tmp_path / "older", values)), read_bundle(write(tmp_path / "now"))
    assert older.bundle_id == now.bundle_id
    assert (older.sampling, older.transformer) == (now.sampling, now.transformer)
