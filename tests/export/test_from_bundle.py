"""Weights read back from a bundle compute what its graphs do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle.read import Bundle, find_bundle, read_bundle
from medvar_engine.bundle.sign import sign_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_export.from_bundle import read_weights
from medvar_export.parity import measure_parity
from medvar_export.precision import store_half


def differences(bundle: Bundle) -> dict[str, float]:
    torch.set_num_threads(1)
    tokenizer, transformer = read_weights(bundle)
    if isinstance(tokenizer, ResolutionTokenizer) and tokenizer.refiner.grain is not None:
        # The noise belongs to the code, not to the weights, but the graph stores it in half precision, too.
        tokenizer.refiner.grain = tokenizer.refiner.grain.half().float()
    reference = TorchBackend(tokenizer, transformer, bundle.labels)
    return measure_parity(reference, OnnxBackend(bundle, device="cpu"))


def test_the_shipped_bundle_comes_back() -> None:
    """Nobody could fine-tune the model that everybody has: it ships as graphs only, its weights rounded and folded."""
    parity = differences(read_bundle(find_bundle("demo")))
    assert parity["tokens_agreeing"] == 1
    assert max(parity[name] for name in ("logits", "latent", "image")) < 1e-4


def test_every_weight_comes_back(tiny_bundle: Path, tiny_models: tuple[Tokenizer, Transformer]) -> None:
    """Each export of a fine-tuned model would drift away from its base, or lose a weight that this image hides."""
    for model, expected in zip(read_weights(read_bundle(tiny_bundle)), tiny_models, strict=True):
        assert type(model.config) is type(expected.config)
        found = model.state_dict()
        assert list(found) == list(expected.state_dict())
        for name, tensor in expected.state_dict().items():
            if name.endswith("log_scale"):
                tensor = tensor.clamp(max=np.log(100))  # what is above it computes the same
            if not name.endswith("usage"):  # generating does not need it, so that it is in no graph
                torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert read_weights(read_bundle(tiny_bundle))[0].config == tiny_models[0].config


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """The tiny bundle with one graph changed by a function, and signed again."""

    def make(change: Callable[[onnx.ModelProto], onnx.ModelProto | None], name: str = "step.onnx") -> Bundle:
        folder = shutil.copytree(tiny_bundle, tmp_path / "copy")
        graph = onnx.load(folder / name)
        (folder / name).write_bytes((change(graph) or graph).SerializeToString())
        sign_bundle(folder)
        return read_bundle(folder)

    return make


def test_weights_stored_in_half_precision(copy: Callable[..., Bundle]) -> None:
    """A bundle for download could not be trained further."""
    parity = differences(copy(store_half))
    assert max(parity[name] for name in ("logits", "latent", "image")) < 1e-4


def test_nodes_without_their_modules(copy: Callable[..., Bundle]) -> None:
    """Graphs of another exporter would be read as a model of some of its weights."""

    def strip(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            del node.metadata_props[:]

    with pytest.raises(MedvarError, match=r"step\.onnx: it lacks 'blocks.0.mlp.0.bias'.*\.safetensors"):
        read_weights(copy(strip))


def test_weights_in_another_file(copy: Callable[..., Bundle]) -> None:
    """A stranger's bundle could have any file of this machine read as a weight, and exported."""

    def outside(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../secret")
        tensor.ClearField("raw_data")

    with pytest.raises(MedvarError, match="lies in another file"):
        read_weights(copy(outside))


def test_a_graph_of_another_shape(copy: Callable[..., Bundle], tmp_path: Path) -> None:
    """A manifest that claims another model would end in a traceback of torch."""
    folder = copy(lambda _: None).path
    values = json.loads((folder / "bundle.json").read_text())
    values["model"]["depth"] = 3
    (folder / "bundle.json").write_text(json.dumps(values))
    sign_bundle(folder)
    with pytest.raises(MedvarError, match=r"it lacks 'blocks\.2\."):
        read_weights(read_bundle(folder))


def test_hashes_are_checked_first(tiny_bundle: Path, tmp_path: Path) -> None:
    """A graph that somebody changed would be trained further and handed on as the original's child."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "copy")
    content = bytearray((folder / "step.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "step.onnx").write_bytes(content)
    with pytest.raises(MedvarError, match="sha256 differs"):
        read_weights(read_bundle(folder))
