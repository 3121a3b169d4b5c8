"""Opening a bundle in ONNX Runtime: what is missing is said with the command that mends it."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from medvar_engine.backends import onnx as onnx_backend
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.onnx_sessions import Sessions
from medvar_engine.bundle.read import MANIFEST, Bundle, manifest_digest, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.request import Sampling


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


def replaced(bundle: Bundle, folder: Path, name: str, content: bytes) -> Bundle:
    """A copy with another file, whose hash is right."""
    shutil.copytree(bundle.path, folder)
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return read_bundle(folder)


def test_says_what_it_runs_on(tiny_onnx: OnnxBackend, bundle: Bundle) -> None:
    """A user of a GPU could not tell that all runs on the CPU."""
    assert tiny_onnx.info.provider == "ONNX Runtime, CPUExecutionProvider"
    assert tiny_onnx.info.bundle_id == bundle.bundle_id
    assert (tiny_onnx.info.precision, tiny_onnx.info.image_size) == ("float32", 16)
    assert tiny_onnx.info.weights == bundle.weights != ""


def test_a_missing_runtime_is_reported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start after `pip install napari-medvar` would end in a traceback."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MedvarError) as caught:
        OnnxBackend(bundle)
    assert "pip install 'napari-medvar[cpu]'" in str(caught.value)
    assert "pip install 'napari-medvar[gpu]'" in str(caught.value)


def test_two_installed_runtimes_are_reported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime and onnxruntime-gpu together leave an empty package: an AttributeError nobody understands."""
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(MedvarError, match="Uninstall both"):
        OnnxBackend(bundle)


def test_cuda_requested_but_absent(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would fall back to the CPU without a word, ten times slower."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MedvarError, match=r"napari-medvar\[gpu\]"):
        OnnxBackend(bundle, device="cuda")
    assert "CPUExecutionProvider" in OnnxBackend(bundle, device="auto").info.provider


def test_cuda_that_does_not_work_is_reported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel for CUDA on a machine without it says that it offers CUDA: what really runs must be told."""
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: offered)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):  # the runtime's own
        backend = OnnxBackend(bundle, device="auto")
    assert "CPUExecutionProvider" in backend.info.provider
    with pytest.raises(MedvarError, match="CUDA was requested"), pytest.warns(UserWarning, match="CUDA"):
        OnnxBackend(bundle, device="cuda")


def test_a_device_that_does_not_exist(bundle: Bundle) -> None:
    """A typing mistake would run somewhere."""
    with pytest.raises(MedvarError, match="'tpu'"):
        OnnxBackend(bundle, device="tpu")


def use_every_graph(bundle: Bundle) -> None:
    generator = Generator(OnnxBackend(bundle, device="cpu"))
    images = generator.image(generator.finish(generator.start([Request(Condition())])))
    generator.encode(images, [Request()])


@pytest.mark.parametrize("name", ["step.onnx", "decode.onnx", "accumulate_1.onnx", "encode.onnx"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08" * 100])
def test_a_graph_of_random_bytes_with_a_correct_hash_is_refused(
    bundle: Bundle, tmp_path: Path, name: str, content: bytes
) -> None:
    """A bundle made by a broken tool would crash with the runtime's own exceptions."""
    spoilt = replaced(bundle, tmp_path / "spoilt", name, content)
    with pytest.raises(MedvarError, match=name):
        use_every_graph(spoilt)


def test_an_exchanged_graph_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """Two graphs mixed up would fail deep inside numpy."""
    swapped = replaced(bundle, tmp_path / "swapped", "step.onnx", bundle.read("decode.onnx"))
    generator = Generator(OnnxBackend(swapped, device="cpu"))
    with pytest.raises(MedvarError, match=r"step\.onnx"):
        generator.finish(generator.start([Request(Condition())]))


def test_threads_can_be_bounded(bundle: Bundle, tiny_onnx: OnnxBackend) -> None:
    """On a shared machine one image would take every core; and fewer cores must not change the image."""
    requests = [Request(Condition("CT"), seed) for seed in range(3)]
    pyramids = []
    for backend in (OnnxBackend(bundle, device="cpu", threads=1), tiny_onnx):
        generator = Generator(backend)
        pyramids.append(generator.finish(generator.start(requests)).pyramid)
    assert pyramids[0] == pyramids[1]


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the runtime may take other paths for few rows"
)
@pytest.mark.parametrize("block", [1, 9, 40])
def test_blocks_change_no_bit(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """A batch that goes through the networks in parts would give other images than one that goes through whole."""
    requests = [Request(Condition("CT"), seed, Sampling(guidance=seed % 3)) for seed in range(7)]
    made = []
    for tokens in (10**9, block):
        monkeypatch.setattr(onnx_backend, "BLOCK", tokens)
        generator = Generator(OnnxBackend(bundle, device="cpu"))
        generation = generator.finish(generator.start(requests))
        images = generator.image(generation)
        made.append(
            (generation.pyramid.sequence, *generation.entropy, images, *generator.backend.encode(images[:, None]))
        )
    for whole, parts in zip(*made, strict=True):
        np.testing.assert_array_equal(whole, parts)


def test_a_prefix_continued_twice(tiny_onnx: OnnxBackend) -> None:
    """Of two candidates with the same coarse scales, the second would see the first one's fine ones."""
    labels, tokens = np.array([[0, 1, 0], [2, 3, 2]]), np.array([[3], [7]])
    _, prefix = tiny_onnx.step(tiny_onnx.start(labels), None)
    _, features = tiny_onnx.accumulate(None, tokens, 0)
    first, _ = tiny_onnx.step(prefix, features)
    tiny_onnx.step(prefix, np.zeros_like(features))
    again, longer = tiny_onnx.step(prefix, features)
    np.testing.assert_array_equal(first, again)
    assert (prefix.depth, longer.depth) == (1, 2)
    swapped, _ = tiny_onnx.step(tiny_onnx.gather([(prefix, 1), (prefix, 0)]), features[::-1].copy())
    np.testing.assert_array_equal(swapped, first[::-1])


@pytest.mark.parametrize("graph", ["step.onnx", "accumulate_0.onnx", "decode.onnx", "encode.onnx"])
@pytest.mark.parametrize("odd", ["flat", "missing", "text", "scalar", "turned"])
def test_outputs_other_than_those_in_the_manifest_are_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, graph: str, odd: str
) -> None:
    """A bundle that a stranger signed again would end in a traceback, in the middle of an image."""
    backend = OnnxBackend(bundle, device="cpu")
    run = Sessions.run

    def changed(self: Sessions, name: str, feeds: dict[str, Any]) -> list[Any]:
        outputs = run(self, name, feeds)
        if name != graph:
            return outputs
        match odd:
            case "flat":
                return [one.reshape(-1) for one in outputs]
            case "missing":
                return outputs[:-1]
            case "text":
                return [np.array(["a", "b"], dtype=object) for _ in outputs]
            case "scalar":
                return [np.float32(1) for _ in outputs]
            case _:
                return [np.moveaxis(one, -1, 0) if one.ndim > 2 else one[:, :-1] for one in outputs]

    monkeypatch.setattr(Sessions, "run", changed)
    generator, size = Generator(backend), backend.info.image_size

    def use() -> None:
        if graph == "encode.onnx":
            generator.encode(np.zeros((1, size, size), dtype=np.float32), [Request()])
        else:
            generator.image(generator.finish(generator.start([Request(Condition("CT"), 3)])))

    with pytest.raises(MedvarError, match=graph.replace(".", r"\.")):
        use()


ROWS = 3


def all_rows(outputs: list[Any]) -> list[Any]:
    return [np.repeat(one, ROWS, axis=0) for one in outputs]


def no_rows(outputs: list[Any]) -> list[Any]:
    return [one[:0] for one in outputs]


def one_number(outputs: list[Any]) -> list[Any]:
    return [one.reshape(-1)[0].reshape(()) for one in outputs]


def other_numbers(outputs: list[Any]) -> list[Any]:
    return [one.astype(np.complex64) for one in outputs]


def longer_rows(outputs: list[Any]) -> list[Any]:
    return [np.repeat(one, 2, axis=-1) for one in outputs]


@pytest.mark.parametrize("graph", ["step.onnx", "accumulate_0.onnx", "accumulate_3.onnx", "decode.onnx", "encode.onnx"])
@pytest.mark.parametrize("odd", [all_rows, no_rows, one_number, other_numbers, longer_rows])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_every_block_has_its_own_rows(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, graph: str, odd: Callable[[list[Any]], list[Any]], block: int
) -> None:
    """Of a graph that counts its runs, one block would stand for all images, or leave rows of uninitialised memory."""
    monkeypatch.setattr(onnx_backend, "BLOCK", 1)  # each image is a block of its own
    backend, run, runs = OnnxBackend(bundle, device="cpu"), Sessions.run, []

    def changed(self: Sessions, name: str, feeds: dict[str, Any]) -> list[Any]:
        outputs = run(self, name, feeds)
        if name != graph:
            return outputs
        runs.append(name)
        return odd(outputs) if len(runs) == block + 1 else outputs

    monkeypatch.setattr(Sessions, "run", changed)
    size = backend.info.image_size

    def use() -> None:
        if graph == "encode.onnx":
            backend.encode(np.zeros((ROWS, 1, size, size), dtype=np.float32))
        else:
            generator = Generator(backend)
            generator.image(generator.finish(generator.start([Request(seed=seed) for seed in range(ROWS)])))

    with pytest.raises(MedvarError, match=rf"{graph.replace('.', '[.]')} of the bundle returns"):
        use()
    assert len(runs) == block + 1


def test_a_decoder_that_ignores_its_input(bundle: Bundle, tmp_path: Path) -> None:
    """Its one image would be all images, however many are asked for."""
    helper = onnx.helper
    latent = helper.make_tensor_value_info("latent", onnx.TensorProto.FLOAT, None)
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None)
    zeros = helper.make_tensor("zeros", onnx.TensorProto.FLOAT, [ROWS, 1, 16, 16], np.zeros(ROWS * 256))
    nodes = [helper.make_node("Identity", ["zeros"], ["image"])]
    model = helper.make_model(
        helper.make_graph(nodes, "hostile", [latent], [image], [zeros]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    backend = OnnxBackend(replaced(bundle, tmp_path / "same", "decode.onnx", model.SerializeToString()), device="cpu")
    assert len(backend.decode(backend.info.no_latent(ROWS))) == ROWS
    for rows in (ROWS - 1, ROWS + 1):
        with pytest.raises(MedvarError, match=r"decode[.]onnx of the bundle returns images of shape \(3, "):
            backend.decode(backend.info.no_latent(rows))
