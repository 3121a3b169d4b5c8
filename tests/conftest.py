"""What all rooms of tests share: a tiny model of random weights, and traces of no model at all."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

import medvar_engine
from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.bundle.read import SliceType, read_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request, Trace
from medvar_engine.request import Sampling
from medvar_engine.tokens.pyramid import TokenPyramid
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray, IntArray

if TYPE_CHECKING:
    import onnx

    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.backends.torch import TorchBackend
    from medvar_engine.models.tokenizer import Tokenizer
    from medvar_engine.models.transformer import Transformer

# A slow machine is no failure; and in CI the same examples every time.
hypothesis.settings.register_profile("medvar", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("medvar")

pytest_plugins = ["invented_people", "no_skips", "tiny_pairs"]  # of tests/fixtures

Weights = tuple[Path, Path]  # tokenizer, transformer

LABELS = LabelSpace(modality=("CT", "MR"), region=("abdomen", "brain", "chest"), plane=("axial", "coronal"))


def pytest_report_header() -> str:
    return f"medvar_engine: {Path(medvar_engine.__file__).parent}"


@pytest.fixture(scope="session")
def tiny_models() -> tuple[Tokenizer, Transformer]:
    """Networks of 16×16 pixels, 4 scales and 24 codes. Random weights everywhere, so that logits are far from
    uniform and every scale matters: a fresh network is nearly blind to its prefix.
    """
    import torch

    from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
    from medvar_engine.models.transformer import Transformer, TransformerConfig

    torch.set_num_threads(1)  # the model is too small for more
    sides, vocabulary, channels = (1, 2, 3, 4), 24, 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = Tokenizer(
            TokenizerConfig(16, sides, vocabulary, channels, (8, 16), res_blocks=1, groups=4, patch=2)
        )
        transformer = Transformer(
            TransformerConfig(sides, vocabulary, channels, LABELS.sizes, depth=2, width=16, heads=2)
        )
        with torch.no_grad():
            for parameter in transformer.parameters():
                parameter.normal_(std=0.3)
            transformer.head.weight.normal_(std=0.15)
            tokenizer.quantizer.codebook.weight.normal_()
    return tokenizer.eval(), transformer.eval()


@pytest.fixture(scope="session")
def tiny_backend(tiny_models: tuple[Tokenizer, Transformer]) -> TorchBackend:
    """The tiny networks in torch."""
    from medvar_engine.backends.torch import TorchBackend

    return TorchBackend(*tiny_models, LABELS, bundle_id="ab" * 32)


@pytest.fixture
def generator(tiny_backend: TorchBackend) -> Generator:
    """Of the tiny networks, with a cache of its own."""
    return Generator(tiny_backend)


@pytest.fixture
def trace(generator: Generator) -> Trace:
    """A finished image of the tiny networks."""
    return generator.finish(generator.start([Request(Condition("MR", "brain", "axial"), 5)])).trace(0)


@pytest.fixture(scope="session")
def tiny_weights(tiny_models: tuple[Tokenizer, Transformer], tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The tiny networks as the two files that training writes."""
    from medvar_engine.models.weight_files import save_tokenizer, save_transformer

    folder = tmp_path_factory.mktemp("weights")
    paths = folder / "tokenizer.safetensors", folder / "transformer.safetensors"
    save_tokenizer(paths[0], tiny_models[0])
    save_transformer(paths[1], tiny_models[1], LABELS)
    return paths


@pytest.fixture(scope="session")
def tiny_bundle(tiny_weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny networks, exported once. Tests that damage it copy it first."""
    from medvar_export.write_bundle import Description, export_bundle

    chest = SliceType(Condition("CT", "chest", "axial"), 70, 3, 0.75, -1000, 400, "HU")
    brain = SliceType(Condition("MR", "brain", "axial"), 90, 2, None, 0, 1, "arbitrary")
    about = Description("tiny", "MIT", ("nobody",), "Random weights: nobody.", "# tiny\n", (chest, brain))
    return export_bundle(*tiny_weights, tmp_path_factory.mktemp("bundles") / "tiny", about, log=lambda _: None)


@pytest.fixture(scope="session")
def gated(tiny_bundle: Path) -> Callable[[Path, FloatArray], Path]:
    """`gated(folder, images)`: the tiny bundle with a gate that takes images ``(N, 16, 16)`` for training slices.

    There are no other patients, and the threshold is low, so that only what is hardly changed is flagged.
    """
    from medvar_engine.bundle.add_files import add_to_bundle
    from medvar_engine.memorisation.edge_maps import edge_map
    from medvar_engine.memorisation.gate import Gate
    from medvar_engine.memorisation.packed_maps import pack
    from medvar_engine.memorisation.projection import Projection
    from medvar_engine.memorisation.training_index import pack_index

    noise = np.random.default_rng(0).uniform(-1, 1, (200, 16, 16)).astype(np.float32)
    maps = np.array([edge_map(image) for image in noise])
    projection = Projection.fit(maps, maps, maps[::-1])

    def make(folder: Path, images: FloatArray) -> Path:
        index = pack(np.array([edge_map(image) for image in images]))
        gate = Gate(projection, index, ["ann"] * len(images), (8, 999), 0.99)
        shutil.copytree(tiny_bundle, folder)
        return add_to_bundle(folder, pack_index(gate, key=b"key")).path

    return make


@pytest.fixture(scope="session")
def tiny_onnx(tiny_bundle: Path) -> OnnxBackend:
    """The tiny bundle in ONNX Runtime, on the CPU; loaded whole, for some tests take the runtime away for a while."""
    from medvar_engine.backends.onnx import OnnxBackend

    backend = OnnxBackend(read_bundle(tiny_bundle), device="cpu")
    backend.decode(np.zeros((1, backend.info.latent_channels, *(2 * (backend.info.schedule.latent_side,))), np.float32))
    return backend


@pytest.fixture
def traced(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, onnx.ModelProto]:
    """Exports of the tiny networks take these graphs, for tracing takes long. Change one, and it is exported so."""
    import onnx

    from medvar_export import write_bundle

    graphs = {path.name: onnx.load(path) for path in sorted(tiny_bundle.glob("*.onnx"))}
    others = {name: graph for name, graph in graphs.items() if name != "step.onnx"}
    monkeypatch.setattr(write_bundle, "tokenizer_graphs", lambda _: others)
    monkeypatch.setattr("medvar_export.precision.step_graph", lambda _: graphs["step.onnx"])
    return graphs


class Watched:
    """A backend that notes which scales it computes, for how many rows."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.info = backend.info
        self.steps: list[tuple[int, int]] = []  # (scale, rows)
        self.previews: list[bool] = []
        self.start, self.gather = backend.start, backend.gather
        self.accumulate, self.encode = backend.accumulate, backend.encode

    @property
    def scales(self) -> list[int]:
        return [scale for scale, _ in self.steps]

    def step(self, state: PrefixState, scale_features: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        self.steps.append((state.depth, len(state.labels)))
        return self._backend.step(state, scale_features)

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        self.previews.append(preview)
        return self._backend.decode(latent, preview=preview)


@pytest.fixture
def watched(tiny_backend: TorchBackend) -> Watched:
    return Watched(tiny_backend)


@pytest.fixture
def make_trace() -> Callable[..., Trace]:
    """Traces of pretended images: random tokens, and keywords of `Trace`."""

    def make(
        sides: Sequence[int] = (1, 2, 3),
        *,
        seed: int = 0,
        condition: Condition = Condition("CT", "chest"),
        **more: object,
    ) -> Trace:
        schedule = ScaleSchedule(tuple(sides))
        rng = np.random.default_rng(seed)
        tokens: IntArray = rng.integers(0, 4096, (1, schedule.tokens))
        entropy = tuple(rng.random((side, side), dtype=np.float32).round(4) for side in schedule)
        request = Request(condition, seed, Sampling(guidance=2.0, top_k=9))
        return Trace(request, TokenPyramid.from_sequence(schedule, tokens), entropy, "ab" * 32, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def prepared() -> Callable[..., Path]:
    """Prepared slices of random pixels: `prepared(folder, ["ct1", "mr1"])`, where a name begins with the modality."""
    from invented_facts import invented_facts

    from medvar_engine.data.shards import ShardWriter
    from medvar_engine.data.shards.slice_facts import SliceFacts
    from medvar_engine.data.split import SplitRule, split_patients

    def facts(patient: str, number: int) -> SliceFacts:
        modality = patient[:2].upper()
        return invented_facts(
            patient,
            modality=modality,
            region={"CT": "chest", "MR": "brain"}[modality],
            dataset="some",
            spacing_mm=1.25 if number else None,
            high=400.0,
            unit="HU" if modality == "CT" else "arbitrary",
            position_mm=float(number),
            series=f"scans/{patient}",
            source="Some Data",
            licence="CC BY 4.0",
            fingerprint=bytes([number]) * 32,
        )

    def write(
        folder: Path, patients: Sequence[str], *, size: int = 8, slices: int = 3, seed: int = 0, **rule: object
    ) -> Path:
        rng = np.random.default_rng(seed)
        made = SplitRule(**{"test_fraction": 0.3} | rule)  # type: ignore[arg-type]
        with ShardWriter(folder, size, shard_slices=4) as writer:
            for patient in patients:
                codes = rng.integers(0, 65536, (slices, size, size)).astype(np.uint16)
                writer.add(codes, [facts(patient, number) for number in range(slices)])
            split, remarks = split_patients(
                writer.strata, test_fraction=made.test_fraction, seed=made.seed, holdout=made.holdout
            )
            writer.finish(split, recipe={"size": size} | made.to_dict(), remarks=remarks)
        return folder

    return write


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Servers on this computer: `served(limits, token=…)` starts one of the tiny bundle, or another one.

    It gives the address.
    """
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.serve.limits import Limits
    from medvar_engine.serve.run_server import make_server

    running = []

    def start(limits: Limits | None = None, *, bundle: Path | None = None, **more: Any) -> str:
        served = read_bundle(bundle or request.getfixturevalue("tiny_bundle"))
        backend = OnnxBackend(served, device="cpu") if bundle else request.getfixturevalue("tiny_onnx")
        server = make_server(served, backend, limits or Limits(), port=0, **more)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        return f"{'https' if 'certificate' in more else 'http'}://127.0.0.1:{port}"

    yield start
    for server, _ in running:
        server.should_exit = server.force_exit = True
    for _, thread in running:
        thread.join(10)
