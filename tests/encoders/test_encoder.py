"""Encoders: what a slice becomes, from which file, and what is said of a file that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from medvar_engine.encoders.descriptor import DescriptorEncoder
from medvar_engine.encoders.encoder import open_encoder
from medvar_engine.encoders.known_encoders import KNOWN_ENCODERS
from medvar_engine.encoders.onnx_encoder import OnnxEncoder
from medvar_engine.encoders.preprocessing import Preprocessing, read_preprocessing
from medvar_engine.encoders.simclr import SimCLREncoder
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

Slices = Callable[..., FloatArray]


def pooling_model(*, channels: int = 3, pooled: bool = True, external: str = "") -> bytes:
    """ONNX that averages every channel, and adds a constant 0.5, perhaps from a file outside."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    half = onnx.numpy_helper.from_array(np.full((1,), 0.5, np.float32), "half")
    if external:
        onnx.external_data_helper.set_external_data(half, external)
        half.ClearField("raw_data")
    nodes = [helper.make_node("Add", ["image", "half"], ["sum"])]
    nodes.append(helper.make_node("GlobalAveragePool" if pooled else "Identity", ["sum"], ["features"]))
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", kind, ["batch", channels, "side", "side"])],
        [helper.make_tensor_value_info("features", kind, None)],
        [half],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_preprocessing_follows_its_settings() -> None:
    """Breaks for published figures: a mean or a range applied otherwise gives an FID that compares with nobody's."""
    image = np.array([[[-1, 0], [0, 1]]], dtype=np.float32)
    prepare = Preprocessing(2, low=0, high=255, mean=(127.5, 0.0, 55.0), std=(127.5, 255.0, 10.0))
    found = prepare(image)[0]
    np.testing.assert_allclose(found[0], image[0], atol=1e-6)
    np.testing.assert_allclose(found[1], (image[0] + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(found[2], (image[0] * 127.5 + 72.5) / 10, atol=1e-5)
    smaller = Preprocessing(1, "area", -1, 1, (0.0,), (1.0,))(np.array([[[-1, 0], [0, 0.5]]], dtype=np.float32))
    np.testing.assert_allclose(smaller, [[[[-0.125]]]], atol=1e-6)


def test_preprocessing_goes_to_json_and_back(tmp_path: Path) -> None:
    """Breaks for whoever repeats a figure from the report."""
    path = tmp_path / "encoder.json"
    for known in KNOWN_ENCODERS.values():
        path.write_text(json.dumps(known.preprocessing.to_dict()))
        assert read_preprocessing(path) == known.preprocessing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "size"),
        ('{"size": 224, "sice": 3}', "sice"),
        ('{"size": 22.5}', "22.5"),
        ('{"size": 10000000}', "1…4096"),
        ('{"size": 224, "kernel": "nearest"}', "kernel"),
        ('{"size": 224, "std": [0, 1, 1]}', "std"),
        ('{"size": 224, "mean": [0.5]}', "mean"),
        ('{"size": 224, "low": NaN}', "NaN"),
        ('{"size": 224, "mean": "grey"}', "wrong type"),
        ("[224]", "list"),
        ("{", "not JSON"),
    ],
)
def test_broken_preprocessing_is_explained(tmp_path: Path, text: str, says: str) -> None:
    """Breaks for a mistyped JSON file: it must name the field, not fall back on some default."""
    path = tmp_path / "encoder.json"
    path.write_text(text)
    with pytest.raises(MedvarError, match=says) as caught:
        read_preprocessing(path)
    assert str(path) in str(caught.value)


def test_a_known_encoder_without_its_file_says_how_to_get_it() -> None:
    """Breaks for everyone who asks for RadFID: none of these can ship, so the message is all they have."""
    for name, known in KNOWN_ENCODERS.items():
        with pytest.raises(MedvarError) as caught:
            open_encoder(name)
        message = str(caught.value)
        assert known.source in message
        assert f"{name}={name}.onnx" in message
        compile(known.export, name, "exec")


def test_an_onnx_file_with_its_preprocessing_beside(tmp_path: Path, slices_of: Slices) -> None:
    """Breaks for users' own encoders; the report must say which file it was."""
    path = tmp_path / "mine.onnx"
    path.write_bytes(pooling_model())
    with pytest.raises(MedvarError, match=r"mine\.json"):
        open_encoder(str(path))
    (tmp_path / "mine.json").write_text('{"size": 16, "kernel": "area"}')
    encoder = open_encoder(str(path))
    images = slices_of(0, 20)
    features = encoder.encode(images)
    assert (features.shape, features.dtype, encoder.dimension) == ((20, 3), np.float32, 3)
    np.testing.assert_allclose(features, (images.mean(axis=(1, 2))[:, None] + 1) / 2 + 0.5 + np.zeros(3), atol=1e-5)
    np.testing.assert_array_equal(features[7:9], encoder.encode(images[7:9]))
    assert encoder.encode(images[:0]).shape == (0, 3)
    described = encoder.describe()
    assert described["name"] == "mine"
    assert described["preprocessing"]["kernel"] == "area"
    assert len(described["sha256"]) == 64
    assert open_encoder(f"mobilenet={path}").describe()["preprocessing"]["size"] == 224


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pooling_model(channels=1), "does not accept batches of images with 3 channels"),
        (pooling_model(pooled=False), "row of features per image"),
        (pooling_model(external="secret.bin"), "self-contained"),
        (b"no ONNX", "cannot be used as an ONNX file"),
        (b"", "cannot be used as an ONNX file"),
    ],
)
def test_unusable_onnx_files(content: bytes, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for files from strangers: a graph must not read other files of this computer, nor end in a traceback."""
    (tmp_path / "secret.bin").write_bytes(np.full(1, 7, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedvarError, match=says):
        OnnxEncoder(content, Preprocessing(8), name="bad")


def one_node(node: onnx.NodeProto, constants: list[onnx.TensorProto], kind: int) -> bytes:
    """ONNX of one operator, which gets the image."""
    helper = onnx.helper
    graph = helper.make_graph(
        [node],
        "encoder",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, "side", "side"])],
        [helper.make_tensor_value_info("features", kind, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_an_encoder_that_returns_text() -> None:
    """Numbers are expected of it: a stranger's file would end in a traceback."""
    words = onnx.helper.make_tensor("words", onnx.TensorProto.STRING, [2, 3], [b"one", b"two", b"three"] * 2)
    content = one_node(onnx.helper.make_node("Identity", ["words"], ["features"]), [words], onnx.TensorProto.STRING)
    with pytest.raises(MedvarError, match="bad returns object, but its first output must be numbers"):
        OnnxEncoder(content, Preprocessing(8), name="bad", origin="bad")


def test_an_encoder_that_returns_other_features_for_some_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of many images could not be joined: a traceback, after hours."""
    encoder = OnnxEncoder(pooling_model(), Preprocessing(8), name="odd", origin="odd")
    encode = OnnxEncoder._encode
    images = np.zeros((70, 8, 8), np.float32)
    monkeypatch.setattr(OnnxEncoder, "_encode", lambda self, own: encode(self, own)[:, : 3 if len(own) == 16 else 2])
    with pytest.raises(MedvarError, match="odd returns 2 features for some images, and 3 for others"):
        encoder.encode(images)


def test_an_encoder_larger_than_any(tmp_path: Path) -> None:
    """A file that is mostly a hole would be read into memory whole."""
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(MedvarError, match="larger than 2 GB"):
        open_encoder(str(tmp_path / "large.onnx"))


def test_files_that_are_not_encoders_are_refused(tmp_path: Path) -> None:
    """Breaks for a pickled checkpoint, which could run code, and for mistyped names."""
    with pytest.raises(MedvarError, match="There is no encoder file"):
        open_encoder(str(tmp_path / "none.onnx"))
    with pytest.raises(MedvarError, match="not a known encoder"):
        open_encoder("radimagnet=none.onnx")
    for name, says in (("a.pth", "Export other formats to ONNX"), ("b.safetensors", "safetensors")):
        (tmp_path / name).write_bytes(b"what is this")
        with pytest.raises(MedvarError, match=says):
            open_encoder(str(tmp_path / name))


@pytest.mark.parametrize("kind", ["descriptor", "simclr"])
def test_invalid_slices_are_refused(kind: str, simclr_file: Path) -> None:
    """Breaks for arrays not harmonised: figures of HU taken for [-1, 1] would look like figures."""
    encoder = open_encoder(kind if kind == "descriptor" else str(simclr_file))
    good = np.zeros((2, 32, 32), np.float32)
    for bad in (good[0], good[:, None], good + 40, good * np.nan, good[:, :0]):
        with pytest.raises(MedvarError):
            encoder.encode(bad)
    assert encoder.encode(good[:0]).shape == (0, encoder.dimension)


def test_the_descriptor_detects_changes_that_simclr_ignores(slices_of: Slices, simclr_file: Path) -> None:
    """Breaks for reports: with two encoders blind to blur, a blurring model would look as good as the data."""
    from medvar_engine.evaluate.images.planted_copies import plant

    images = slices_of(3, 24)
    descriptor, simclr = DescriptorEncoder(), SimCLREncoder.load(simclr_file)
    for kind in ("blurred", "noisy", "rewindowed"):
        moved = []
        for encoder in (descriptor, simclr):
            before, after = encoder.encode(images), encoder.encode(plant(images, kind, 0))
            spread = before - before.mean(axis=0)
            moved.append(np.linalg.norm(after - before, axis=1).mean() / np.linalg.norm(spread, axis=1).mean())
        assert moved[0] > moved[1], (kind, moved)
    assert descriptor.encode(images).shape == (24, 96)
    np.testing.assert_array_equal(descriptor.encode(images)[5:6], descriptor.encode(images[5:6]))
    assert DescriptorEncoder().sha256 == descriptor.sha256
