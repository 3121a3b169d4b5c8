"""Graphs are loaded in the background, and weights beside a graph only when they are what the bundle names."""

from __future__ import annotations

import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.onnx_sessions import Sessions
from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.bundle.sign import sign_bundle
from medvar_engine.errors import MedvarError
from medvar_export.write_bundle import write_graph

GRAPH, DATA = "decode.onnx", "decode.onnx.data"
CPU = ["CPUExecutionProvider"]


@pytest.fixture
def split(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose decoder keeps its weights in a file of their own, as one above 2 GB does."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "split")
    write_graph(folder / GRAPH, onnx.load(tiny_bundle / GRAPH), largest=1000)
    sign_bundle(folder)
    return folder


def decoded(folder: Path) -> np.ndarray:
    latent = np.random.default_rng(0).standard_normal((1, 4, 4, 4)).astype(np.float32)
    return np.asarray(Sessions(read_bundle(folder), CPU, 1).run(GRAPH, {"latent": latent})[0])


def test_weights_beside_their_graph(split: Path, tiny_bundle: Path) -> None:
    """A model above 2 GB could not be used, or would be another one than was trained."""
    assert (split / GRAPH).stat().st_size < (tiny_bundle / GRAPH).stat().st_size
    assert (split / DATA).stat().st_size > 1000
    np.testing.assert_array_equal(decoded(split), decoded(tiny_bundle))


def missing(folder: Path) -> None:
    (folder / DATA).unlink()


def one_bit(folder: Path) -> None:
    content = bytearray((folder / DATA).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / DATA).write_bytes(content)


def link(folder: Path) -> None:
    moved = (folder / DATA).rename(folder.parent / "elsewhere")
    (folder / DATA).symlink_to(moved)


def too_short(folder: Path) -> None:
    (folder / DATA).write_bytes((folder / DATA).read_bytes()[:100])
    sign_bundle(folder)


def unnamed(folder: Path) -> None:
    moved = (folder / DATA).rename(folder.parent / "kept")
    sign_bundle(folder)
    moved.rename(folder / DATA)


@pytest.mark.parametrize("harm", [missing, one_bit, link, too_short, unnamed])
def test_other_weights_are_refused(split: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was changed, cut, or lies somewhere else would be taken for the model's."""
    harm(split)
    monkeypatch.chdir(split)  # the runtime itself would look in the current folder
    with pytest.raises(MedvarError, match=r"decode\.onnx"):
        decoded(split)


@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin", "{folder}/secret.bin", "sub/secret.bin"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_graph_cannot_open_files(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, beside: bool
) -> None:
    """A stranger's model would read a user's files, and show them as an image."""
    for folder in (split, tmp_path, split / "sub"):
        folder.mkdir(exist_ok=True)
        shutil.copy(split / DATA, folder / "secret.bin")
    graph = onnx.load(split / GRAPH, load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place.format(folder=tmp_path)
    (split / GRAPH).write_bytes(graph.SerializeToString())
    if not beside:
        (split / DATA).unlink()
    sign_bundle(split)
    monkeypatch.chdir(split)
    with pytest.raises(MedvarError, match=r"cannot load decode\.onnx"):
        decoded(split)


def test_an_older_runtime_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be made to open files, as above."""
    monkeypatch.delattr("onnxruntime.SessionOptions.add_external_initializers_from_files_in_memory")
    with pytest.raises(MedvarError, match="upgrade"):
        OnnxBackend(read_bundle(tiny_bundle), device="cpu")


def test_loading_continues_in_the_background(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's window would stay shut until the last graph is there; or a graph would be loaded twice."""
    may_read, reads = threading.Event(), []
    bundle, read = read_bundle(tiny_bundle), Bundle.read

    def slow(self: Bundle, name: str) -> bytes:
        if name != "step.onnx":
            assert may_read.wait(10)
        reads.append(name)
        return read(self, name)

    monkeypatch.setattr(Bundle, "read", slow)
    monkeypatch.setattr(Bundle, "codebook", lambda _: None)
    backend = OnnxBackend(bundle, device="cpu")
    assert reads == ["step.onnx"]
    may_read.set()
    backend.decode(np.zeros((1, 4, 4, 4), np.float32))
    assert reads == ["step.onnx", *(f"accumulate_{k}.onnx" for k in range(4)), GRAPH]


def test_an_error_of_background_loading_is_raised_on_use(tiny_bundle: Path, tmp_path: Path) -> None:
    """A damaged decoder would be a message nobody sees, or spoil every other graph; and mending it would not help."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "spoilt")
    content = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(b"damaged")
    backend = OnnxBackend(read_bundle(folder), device="cpu")
    backend.accumulate(None, np.zeros((1, 1), np.int64), 0)
    latent = np.zeros((1, 4, 4, 4), np.float32)
    for _ in range(2):
        with pytest.raises(MedvarError, match="sha256"):
            backend.decode(latent)
    (folder / GRAPH).write_bytes(content)
    assert backend.decode(latent).shape == (1, 1, 16, 16)


def hostile(folder: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> None:
    """A decoder that does all this before it gives an image of zeros."""
    helper = onnx.helper
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None)
    latent = helper.make_tensor_value_info("latent", onnx.TensorProto.FLOAT, ["b", 4, 4, 4])
    graph = helper.make_graph(nodes, "hostile", [latent], [image], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / GRAPH).write_bytes(model.SerializeToString())
    sign_bundle(folder)


def looping(folder: Path) -> None:
    helper, number, truth = onnx.helper, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Mul", ["held", "latent"], ["grown"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", number, []),
            helper.make_tensor_value_info("go", truth, []),
            helper.make_tensor_value_info("held", onnx.TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", truth, []),
            helper.make_tensor_value_info("grown", onnx.TensorProto.FLOAT, None),
        ],
    )
    constants = [
        helper.make_tensor("times", number, [], [2**62]),
        helper.make_tensor("yes", truth, [], [True]),
    ]
    hostile(folder, [helper.make_node("Loop", ["times", "yes", "latent"], ["image"], body=body)], constants)


def test_an_endless_graph_is_stopped(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's model would hold the window, or the server, for ever."""
    monkeypatch.setattr("medvar_engine.untrusted.time_limit.LEAST_SECONDS", 2.0)
    folder = shutil.copytree(tiny_bundle, tmp_path / "hostile")
    looping(folder)
    with pytest.raises(MedvarError, match=r"decode\.onnx.*longer than"):
        decoded(folder)


def test_a_graph_cannot_fill_the_memory(tiny_bundle: Path, tmp_path: Path) -> None:
    """A stranger's model of a kilobyte would take gigabytes, and the computer with it; honest ones still run."""
    helper = onnx.helper
    folder = shutil.copytree(tiny_bundle, tmp_path / "hostile")
    size = helper.make_tensor("size", onnx.TensorProto.INT64, [1], [2**30])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["image"]),
    ]
    hostile(folder, nodes, [size])
    before = _peak()
    with pytest.raises(MedvarError, match=r"decode\.onnx.*more than the limit"):
        decoded(folder)
    assert _peak() - before < 2**29
    assert np.isfinite(decoded(tiny_bundle)).all()


def test_results_that_are_kept_do_not_count(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long session keeps the keys and values of many images: the limit is that of one run."""
    monkeypatch.setattr("medvar_engine.backends.onnx_sessions._PIXEL_BYTES", 0)
    monkeypatch.setattr("medvar_engine.untrusted.memory_limit._SPARE", 2**23)
    sessions = Sessions(read_bundle(tiny_bundle), ["CPUExecutionProvider"], 1)
    kept = [sessions.run(GRAPH, {"latent": np.zeros((64, 4, 4, 4), np.float32)})[0] for _ in range(300)]
    assert sum(one.nbytes for one in kept) > 2 * 2**23


def _peak() -> int:
    """Peak memory of this process in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
