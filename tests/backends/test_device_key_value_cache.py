"""Keys and values that stay on a device, tried on the CPU: the same bits as by numpy, and nothing copied on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.backends.device_key_value_cache import DeviceKeysValues
from medvar_engine.backends.key_value_cache import KeysValues
from medvar_engine.backends.key_value_graphs import average_graph, gather_graph, join_graph
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.onnx_sessions import DEVICES, Sessions
from medvar_engine.bundle.read import find_bundle, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.features import multiscale_features
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.request import Sampling
from medvar_engine.types import FloatArray

SCALES = 4
REQUESTS = [
    Request(Condition("CT", "chest"), 4, Sampling(guidance=2.0)),
    Request(Condition("MR"), 5),
    Request(Condition("CT", "chest"), 6, Sampling(guidance=1.0, top_k=5)),
    Request(Condition("MR", "brain"), 8, Sampling(guidance=2.0, top_k=3)),
]


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is taken for a device with a memory of its own."""
    monkeypatch.setitem(DEVICES, "CPUExecutionProvider", "cpu")


@pytest.fixture
def device(forced: None, tiny_bundle: Path) -> OnnxBackend:
    """The tiny bundle whose keys and values stay on the device."""
    return OnnxBackend(read_bundle(tiny_bundle), device="cpu")


def made(generator: Generator, generation: Generation) -> Iterator[FloatArray]:
    """All that can be seen of images, once they are finished."""
    generation = generator.finish(generation)
    yield generation.pyramid.sequence.astype(np.float32)
    yield from (*generation.entropy, *generation.latents, *generator.likelihood(generation))
    yield generator.image(generation)


def batch(generator: Generator) -> Iterator[FloatArray]:
    yield from made(generator, generator.start(REQUESTS))


def alone(generator: Generator) -> Iterator[FloatArray]:
    yield from made(generator, generator.start(REQUESTS[:1]))


def candidates(generator: Generator) -> Iterator[FloatArray]:
    trace = generator.finish(generator.start(REQUESTS)).trace(0)
    for from_scale in range(SCALES):
        yield from made(generator, generator.resample_many(trace, from_scale, [7, 8, 9], mask=np.eye(16, dtype=bool)))


def under_another_condition(generator: Generator) -> Iterator[FloatArray]:
    trace = generator.finish(generator.start(REQUESTS)).trace(3)
    yield from made(generator, generator.resample(trace, 2, condition=Condition("MR", "abdomen")))


def across_states(generator: Generator) -> Iterator[FloatArray]:
    """Images of several prefixes in one batch, not in their order, and of each some rows only."""
    whole = generator.finish(generator.start(REQUESTS))
    many = generator.finish(generator.resample_many(whole.trace(0), 1, [7, 8, 9]))
    picked = [many.trace(2), whole.trace(0), many.trace(0), whole.trace(2)]
    yield from generator.likelihood(generator.restore(picked))


@pytest.mark.parametrize("use", [batch, alone, candidates, under_another_condition, across_states])
def test_the_same_bits(device: OnnxBackend, tiny_onnx: OnnxBackend, use: Callable[[Generator], Any]) -> None:
    """An image on a GPU would follow from other prefixes than its own: rows or scales mixed up."""
    for own, expected in zip(use(Generator(device)), use(Generator(tiny_onnx)), strict=True):
        np.testing.assert_array_equal(own, expected)


def test_features(device: OnnxBackend, tiny_onnx: OnnxBackend) -> None:
    """A classifier that was trained on features of a CPU would be useless for those of a GPU."""
    images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16)).astype(np.float32)
    own, expected = (multiscale_features(Generator(backend), images) for backend in (device, tiny_onnx))
    np.testing.assert_allclose(own, expected, atol=1e-5)


@pytest.mark.usefixtures("forced")
def test_a_bundle_of_an_older_export() -> None:
    """Who has the shipped model could not use a GPU until it is exported again."""
    bundle = read_bundle(find_bundle())
    request = Request(bundle.labels.decode((0,) * len(bundle.labels.factors)), 1, bundle.sampling)
    sequences = []
    for _ in range(2):
        generator = Generator(OnnxBackend(bundle, device="cpu"))
        sequences.append(generator.finish(generator.start([request])).pyramid.sequence)
        DEVICES.pop("CPUExecutionProvider", None)
    np.testing.assert_array_equal(*sequences)


def test_nothing_passes_through_the_host(device: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scale would copy all those before it to the host and back, which is what this is there to spare."""
    up, down = [], []
    bind, numpy = onnxruntime.IOBinding.bind_cpu_input, onnxruntime.OrtValue.numpy
    run = onnxruntime.InferenceSession.run

    def binding(self: Any, name: str, array: Any) -> None:
        up.append((name, array.shape))
        bind(self, name, array)

    def reading(self: Any) -> Any:
        down.append(self.shape())
        return numpy(self)

    def running(self: Any, names: Any, feeds: dict[str, Any], options: Any) -> Any:
        assert "past" not in feeds
        return run(self, names, feeds, options)

    monkeypatch.setattr(onnxruntime.IOBinding, "bind_cpu_input", binding)
    monkeypatch.setattr(onnxruntime.OrtValue, "numpy", reading)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", running)
    list(candidates(Generator(device)))
    list(across_states(Generator(device)))
    assert {shape[4] for name, shape in up if len(shape) == 6} == {0}  # the empty prefix, and no other
    assert {name.split("_")[0] for name, _ in up} == {"labels", "features", "positions", "past", "rows"}
    assert {len(shape) for shape in down} == {3}  # logits
    down.clear()
    generator = Generator(device)
    generator.features(generator.finish(generator.start(REQUESTS)))
    assert {len(shape) for shape in down} == {3, 5}  # and averages


def test_the_cache_counts_what_the_device_holds(device: OnnxBackend, tiny_onnx: OnnxBackend) -> None:
    """A GPU's memory would fill beyond the bound of the cache, or prefixes that fit would be dropped."""
    own, usual = Generator(device), Generator(tiny_onnx)
    for generator in (own, usual):
        generator.finish(generator.start(REQUESTS[:3]))
    assert own.cache.nbytes == usual.cache.nbytes > 0
    own.cache.limit = own.cache.nbytes // 3
    for generator in (own, usual):
        list(candidates(generator))
    assert own.cache.nbytes < usual.cache.nbytes
    own.cache.clear()
    assert own.cache.nbytes == 0


def grown(backend: Backend, seed: int) -> tuple[PrefixState, FloatArray]:
    """A prefix of two scales and three rows, and input of the third scale."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (3, 3))
    _, state = backend.step(backend.start(labels), None)
    _, state = backend.step(state, rng.normal(size=(3, 4, 4)).astype(np.float32))
    return state, rng.normal(size=(3, 9, 4)).astype(np.float32)


def test_rows_of_any_order(device: OnnxBackend, tiny_onnx: OnnxBackend) -> None:
    """Images would change places, or a row that is asked for twice would be there once; or a prefix would change."""
    found = []
    for backend in (device, tiny_onnx):
        (one, features), (other, _) = (grown(backend, seed) for seed in range(2))
        logits, _ = backend.step(one, features)
        for rows in ([(other, 2), (one, 0), (one, 0), (other, 1), (one, 2)], [(one, 2)], [(one, 1), (one, 0)]):
            gathered = backend.gather(rows)
            assert gathered.depth == 2
            found.append(backend.step(gathered, features[[0] * len(rows)])[0])
        assert backend.gather([(one, row) for row in range(3)]) is one
        np.testing.assert_array_equal(backend.step(one, features)[0], logits)
    for own, expected in zip(found[:3], found[3:], strict=True):
        np.testing.assert_array_equal(own, expected)


def test_a_cpu_keeps_arrays(tiny_onnx: OnnxBackend, device: OnnxBackend) -> None:
    """A CPU would go a way that gains it nothing, and no longer in blocks that its caches hold."""
    assert list(DEVICES) == ["CUDAExecutionProvider", "CPUExecutionProvider"]  # the latter by this test alone
    kinds = {tiny_onnx: KeysValues, device: DeviceKeysValues}
    for backend, kind in kinds.items():
        assert all(isinstance(chunk, kind) for chunk in grown(backend, 0)[0].chunks)


@pytest.mark.parametrize("graph", [join_graph(1), join_graph(9), gather_graph(1), gather_graph(300), average_graph()])
def test_graphs_are_valid(graph: bytes) -> None:
    """They are written by hand: another version of the runtime than this one might refuse them."""
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize(
    ("text", "said"),
    [("Failed to allocate memory for requested buffer", "fewer images"), ("CUDNN failure 3", r"step\.onnx: CUDNN")],
)
def test_errors_are_reported(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    """A batch that a GPU's memory does not hold would end in a traceback."""

    def failing(*_: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", failing)
    with pytest.raises(MedvarError, match=said):
        grown(OnnxBackend(read_bundle(tiny_bundle), device="cpu"), 0)


@pytest.mark.usefixtures("forced")
def test_input_of_another_type(tiny_bundle: Path) -> None:
    """Graphs of a broken export would end in a traceback."""
    sessions = Sessions(read_bundle(tiny_bundle), ["CPUExecutionProvider"], 1)
    with pytest.raises(MedvarError, match=r"step\.onnx"):
        sessions.run_bound("step.onnx", {"labels": np.zeros((1, 3), dtype=np.float32)})


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("odd", ["keys", "rows", "names"])
def test_odd_keys_and_values_are_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    """What stays on the device was taken without a look: a stranger's graph would end in a traceback later."""
    run = Sessions.run_bound

    def changed(self: Sessions, name: str, feeds: dict[str, Any], kept: Any = ()) -> list[Any]:
        outputs = run(self, name, feeds, kept)
        if name == "step.onnx":
            array = outputs[1].numpy()
            other = array.astype(np.float64) if odd == "keys" else array[:, :, :-1] if odd == "rows" else array
            outputs[1] = onnxruntime.OrtValue.ortvalue_from_numpy(other)
        return outputs[::-1] if odd == "names" else outputs

    monkeypatch.setattr(Sessions, "run_bound", changed)
    with pytest.raises(MedvarError, match=r"step[.]onnx of the bundle returns (keys and values|logits)"):
        grown(OnnxBackend(read_bundle(tiny_bundle), device="cpu"), 0)
