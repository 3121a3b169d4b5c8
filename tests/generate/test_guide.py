"""Guidance away from a weaker transformer: it takes part in every path that draws tokens, and in no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle.read import GUIDE, MANIFEST, Bundle, read_bundle
from medvar_engine.bundle.sign import sign_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_cache import PrefixCache
from medvar_engine.generate.replay import replay
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import load_transformer, save_transformer
from medvar_engine.request import Request, Sampling
from medvar_engine.serve.jobs import Job
from medvar_engine.serve.memory_budget import MemoryBudget
from medvar_engine.serve.networks import JobBackend, Networks
from medvar_export.from_bundle import write_guide
from medvar_export.write_bundle import Description, export_bundle

ABOUT = Description("guided", "MIT", (), "nobody", "# guided\n")
BRAIN, CHEST = Condition("MR", "brain", "axial"), Condition("CT", "chest")
STRONG = Sampling(guidance=2.0, coarse_guidance=1.0)
REQUESTS = [Request(BRAIN, 1, STRONG), Request(CHEST, 2, STRONG), Request(BRAIN, 3, Sampling(guidance=0.0))]


def random_transformer(like: Transformer, labels: tuple[int, ...], *, seed: int) -> Transformer:
    """A smaller transformer of the same tokens."""
    shape = like.config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = TransformerConfig(
            shape.schedule, shape.vocabulary, shape.latent_channels, labels, depth=1, width=8, heads=1
        )
        guide = Transformer(config)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.normal_(std=0.3)
    return guide.eval()


@pytest.fixture(scope="module")
def guide(tiny_models: tuple[Tokenizer, Transformer]) -> Transformer:
    return random_transformer(tiny_models[1], tiny_models[1].config.labels, seed=5)


@pytest.fixture(scope="module")
def labels(tiny_weights: tuple[Path, Path]) -> LabelSpace:
    return load_transformer(tiny_weights[1])[1]


@pytest.fixture(scope="module")
def in_torch(tiny_models: tuple[Tokenizer, Transformer], guide: Transformer, labels: LabelSpace) -> TorchBackend:
    return TorchBackend(*tiny_models, labels, guide=guide)


@pytest.fixture(scope="module")
def bundle(
    tiny_weights: tuple[Path, Path],
    guide: Transformer,
    labels: LabelSpace,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    folder = tmp_path_factory.mktemp("guided")
    save_transformer(folder / "guide.safetensors", guide, labels)
    made = export_bundle(
        *tiny_weights, folder / "bundle", ABOUT, guide=folder / "guide.safetensors", log=lambda _: None
    )
    return read_bundle(made)


def made(generator: Generator, requests: list[Request]) -> list[np.ndarray]:
    return [trace.pyramid.sequence for trace in generator.finish(generator.start(requests)).traces]


def test_logits_are_those_of_both_networks(
    tiny_models: tuple[Tokenizer, Transformer], guide: Transformer, in_torch: TorchBackend
) -> None:
    """Guidance would move away from something else."""
    generator = Generator(in_torch)
    (own,) = generator._prefixes.guided_logits(generator.start([REQUESTS[0]]))
    labels = torch.tensor([in_torch.info.labels.encode(BRAIN)])
    nothing = torch.tensor([in_torch.info.labels.unconditional])
    with torch.no_grad():
        asked = tiny_models[1].step(labels, None, None, 0)[0][0].numpy()
        weak = guide.step(nothing, None, None, 0)[0][0].numpy()
    plausible = asked >= asked.max(-1, keepdims=True) + np.log(0.02)
    assert plausible.sum() > 1
    np.testing.assert_allclose(own[plausible], (3 * asked - 2 * weak)[plausible], atol=1e-5)
    assert own[~plausible].max(initial=-99) < own[plausible].max() - 16


def test_without_guidance_the_guide_changes_nothing(
    tiny_models: tuple[Tokenizer, Transformer], in_torch: TorchBackend, labels: LabelSpace
) -> None:
    """Images at guidance 0, likelihoods and features would depend on a network that they should not use."""
    plain, guided = Generator(TorchBackend(*tiny_models, labels)), Generator(in_torch)
    np.testing.assert_array_equal(made(plain, REQUESTS[2:]), made(guided, REQUESTS[2:]))
    assert not np.array_equal(made(plain, REQUESTS[:1]), made(guided, REQUESTS[:1]))
    whole = guided.finish(guided.start(REQUESTS))
    for own, other in zip(guided.likelihood(whole), plain.likelihood(whole), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)
    np.testing.assert_allclose(guided.features(whole), plain.features(whole), atol=1e-5)


def test_the_bundle_draws_the_tokens_of_torch(bundle: Bundle, in_torch: TorchBackend) -> None:
    """What was tuned in training would not be what ships."""
    assert bundle.guide == {"depth": 1, "heads": 1, "head_dim": 8}
    onnx = OnnxBackend(bundle, device="cpu")
    assert onnx.info.weights == in_torch.info.weights
    for own, other in zip(made(Generator(onnx), REQUESTS), made(Generator(in_torch), REQUESTS), strict=True):
        np.testing.assert_array_equal(own, other)


def test_the_same_seed_gives_the_same_image_however_it_is_made(bundle: Bundle) -> None:
    """In a batch, alone, without a cache, resampled or replayed."""
    backend = OnnxBackend(bundle, device="cpu")
    generator = Generator(backend)
    together = generator.finish(generator.start(REQUESTS)).traces
    served = Generator(JobBackend(Networks(backend, PrefixCache()), Job(60, MemoryBudget(1).share("me"))))
    assert [trace.pyramid for trace in served.finish(served.start(REQUESTS)).traces] == [t.pyramid for t in together]
    for request, trace in zip(REQUESTS, together, strict=True):
        forgetful = Generator(backend, PrefixCache(limit=1))
        assert forgetful.finish(forgetful.start([request])).trace(0).pyramid == trace.pyramid
        assert replay(Generator(backend), trace).trace(0).pyramid == trace.pyramid
        resampled = Generator(backend).resample(trace, 2)
        assert generator.finish(resampled).trace(0).pyramid == trace.pyramid


def test_resampling_runs_the_guide_from_that_scale_only(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cost would not follow the change."""
    backend = OnnxBackend(bundle, device="cpu")
    generator = Generator(backend)
    trace = generator.finish(generator.start(REQUESTS[:1])).trace(0)
    steps: list[tuple[bool, int]] = []
    step = backend.step

    def noted(state: object, scale_features: object) -> object:
        steps.append((state.guide, state.depth))  # type: ignore[attr-defined]
        return step(state, scale_features)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "step", noted)
    generator.finish(generator.resample(trace, 2, seed=9))
    assert sorted(steps) == [(False, 2), (False, 3), (True, 2), (True, 3)]
    steps.clear()
    small = Generator(backend, PrefixCache(limit=1))
    small.finish(small.start(REQUESTS[:1]))
    assert sorted(steps) == [(guide, k) for guide in (False, True) for k in range(4)]  # each once


def test_a_guide_of_other_tokens_or_labels_is_refused(
    tiny_weights: tuple[Path, Path], tiny_models: tuple[Tokenizer, Transformer], tmp_path: Path
) -> None:
    """The bundle would fail at the first image, or be guided by other conditions."""
    other = LabelSpace(modality=("CT", "US"))
    save_transformer(tmp_path / "labels.safetensors", random_transformer(tiny_models[1], other.sizes, seed=1), other)
    with pytest.raises(MedvarError, match="other conditions than the model"):
        export_bundle(*tiny_weights, tmp_path / "out", ABOUT, guide=tmp_path / "labels.safetensors")
    small = Transformer(TransformerConfig((1, 2), 24, 4, other.sizes, depth=1, width=8, heads=1))
    save_transformer(tmp_path / "tokens.safetensors", small, other)
    with pytest.raises(MedvarError, match="was not trained on tokens of"):
        export_bundle(*tiny_weights, tmp_path / "out", ABOUT, guide=tmp_path / "tokens.safetensors")
    assert not (tmp_path / "out").exists()


def test_the_guide_can_be_read_back(bundle: Bundle, guide: Transformer, tmp_path: Path) -> None:
    """A fine-tuned model would lose it, and with it the guidance that its defaults were chosen for."""
    path = write_guide(bundle, tmp_path)
    assert path is not None
    read, labels = load_transformer(path)
    assert labels == bundle.labels
    nothing = torch.tensor([bundle.labels.unconditional])
    with torch.no_grad():
        torch.testing.assert_close(read.step(nothing, None, None, 0)[0], guide.step(nothing, None, None, 0)[0])


@pytest.mark.parametrize("counts", [{"depth": 10**12}, {"heads": 0}, {"head_dim": "many"}, {"depth": None}])
def test_a_guide_of_odd_counts_is_refused(bundle: Bundle, tmp_path: Path, counts: dict[str, object]) -> None:
    """The first guided image would end in a traceback, or fine-tuning would never begin."""
    odd = Path(shutil.copytree(bundle.path, tmp_path / "odd"))
    manifest = json.loads((odd / MANIFEST).read_text())
    manifest["guide"] |= counts
    (odd / MANIFEST).write_text(json.dumps(manifest))
    sign_bundle(odd)
    with pytest.raises(MedvarError, match="invalid field"):
        read_bundle(odd)


def test_a_manifest_without_the_guides_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """The first guided image would fail."""
    broken = Path(shutil.copytree(bundle.path, tmp_path / "broken"))
    (broken / GUIDE).unlink()
    sign_bundle(broken)
    with pytest.raises(MedvarError, match=r"needs the file guide\.onnx"):
        read_bundle(broken)
