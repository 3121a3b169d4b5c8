"""The torch backend names its weights, so that traces go to and from a bundle of the same weights."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend, weights_digest
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer

Models = tuple[Tokenizer, Transformer]


def test_the_digest_is_of_the_weights(tiny_models: Models, tiny_weights: tuple[Path, Path]) -> None:
    """The same weights would be two models after saving, or two trainings one model."""
    digest = weights_digest(*tiny_models)
    assert TorchBackend.load(*tiny_weights).info.bundle_id == digest
    for network in range(2):
        other = [copy.deepcopy(model) for model in tiny_models]
        with torch.no_grad():
            next(other[network].parameters()).view(-1)[0] += 1e-3
        assert weights_digest(*other) != digest  # type: ignore[arg-type]


def test_traces_of_torch_open_in_the_bundle_and_vice_versa(tiny_weights: tuple[Path, Path], tiny_bundle: Path) -> None:
    """An image found while training could not be opened in napari, nor one from napari examined in torch."""
    bundle = read_bundle(tiny_bundle)
    ours = Generator(TorchBackend.load(*tiny_weights))
    exported = Generator(OnnxBackend(bundle, device="cpu"))
    assert bundle.weights == ours.backend.info.weights
    trace = ours.finish(ours.start([Request(Condition("CT"), 4)])).trace(0)
    assert exported.finish(exported.resample(trace, 2)).pyramid == trace.pyramid
    theirs = exported.finish(exported.start([Request(Condition("MR"), 5)])).trace(0)
    with pytest.raises(MedvarError, match="another model"):
        ours.restore([theirs])
    named = Generator(TorchBackend.load(*tiny_weights, bundle_id=bundle.bundle_id))
    again = named.finish(named.resample(theirs, 0)).trace(0)
    assert (again.bundle_id, again.pyramid) == (theirs.bundle_id, theirs.pyramid)


def test_both_backends_have_the_same_codebook(tiny_backend: TorchBackend, tiny_onnx: OnnxBackend) -> None:
    """Tokens that are alike would depend on what runs the model."""
    assert tiny_onnx.codebook is not None
    np.testing.assert_array_equal(tiny_backend.codebook, tiny_onnx.codebook)
