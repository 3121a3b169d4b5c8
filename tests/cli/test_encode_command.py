"""`medvar encode`, and training on what it wrote."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medvar_engine import storage
from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.conditions import LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import load_tokenizer, save_tokenizer, save_transformer
from medvar_engine.train import token_pyramids
from medvar_engine.train.stages import transformer_stage
from medvar_export.from_bundle import write_weights
from medvar_export.write_bundle import Description, export_bundle

Medvar = Callable[..., Any]
COUNT = 20  # slices of each of two patients


@pytest.fixture
def slices(tmp_path: Path, prepared: Callable[..., Path]) -> Path:
    """Of two patients, one of them held out."""
    return prepared(tmp_path / "slices", ["ct1", "ct2"], size=16, slices=COUNT, holdout=("ct2",))


@pytest.fixture
def tokenizer(tiny_weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained tokenizer, and blocks of work so small that there are several."""
    monkeypatch.setattr(token_pyramids, "_BATCH", 4)
    monkeypatch.setattr(token_pyramids, "_BLOCK", 8)
    return tiny_weights[0]


def train(medvar: Medvar, slices: Path, tokenizer: Path, out: Path, *more: str) -> Any:
    quick = ("steps=2", "batch_size=2", "validate_every=2", "validate_slices=2", "variants=2", "device=cpu", "seed=3")
    kind = ("stage=transformer", "preset=demo", f"data={slices}", f"tokenizer={tokenizer}", f"out={out}")
    return medvar("train", *kind, *quick, *more)


def test_training_on_encoded_slices_is_the_same(
    medvar: Medvar, slices: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding beforehand would give another model, or encode all the same."""
    whole = train(medvar, slices, tokenizer, tmp_path / "whole")
    assert whole.code == 0, whole.err
    tokens = tmp_path / "tokens"
    run = medvar("encode", slices, tokenizer, tokens, "--variants", 3, "--seed", 3, "--device", "cpu")
    assert run.code == 0, run.err
    assert run.lines == [str(tokens)]
    assert "train: 20 slices × 3 variants of 30 tokens" in run.err
    made = np.load(tokens / "pyramids-train.npy", mmap_mode="r")
    assert (made.dtype, made.shape) == (np.uint16, (3, COUNT, 30))
    assert np.array_equal(made[:2], np.load(tmp_path / "whole" / "pyramids-train.npy"))
    assert sorted(path.name for path in tokens.iterdir()) == [
        "pyramids-held-out.json",
        "pyramids-held-out.npy",
        "pyramids-train.json",
        "pyramids-train.npy",
    ]

    def never(*_: object) -> None:
        pytest.fail("the slices were encoded again")

    with monkeypatch.context() as patch:
        patch.setattr(transformer_stage, "write_pyramids", never)
        again = train(medvar, slices, tokenizer, tmp_path / "again", f"pyramids={tokens}")
    assert again.code == 0, again.err
    assert not (tmp_path / "again" / "pyramids-train.npy").exists()
    assert Path(again.lines[-1]).read_bytes() == Path(whole.lines[-1]).read_bytes()


def test_an_interrupted_run_continues(
    medvar: Medvar, slices: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of encoding would be lost, or end in other tokens."""
    assert medvar("encode", slices, tokenizer, tmp_path / "whole").code == 0
    batch, calls = token_pyramids._encode_batch, 0

    def stopping(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:  # in the second block: 2 batches × 4 variants a block
            raise KeyboardInterrupt
        return batch(*arguments)

    monkeypatch.setattr(token_pyramids, "_encode_batch", stopping)
    stopped = medvar("encode", slices, tokenizer, tmp_path / "tokens")
    assert stopped.code == 130
    assert "Run the same command again" in stopped.err
    assert not (tmp_path / "tokens" / "pyramids-train.npy").exists()
    assert medvar("encode", slices, tokenizer, tmp_path / "tokens").code == 0
    assert calls == 12 + (20 - 8) + 5  # what was not finished, and the held-out slices
    for name in ("pyramids-train.npy", "pyramids-train.json", "pyramids-held-out.npy"):
        assert (tmp_path / "tokens" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert medvar("encode", slices, tokenizer, tmp_path / "tokens").code == 0
    assert calls == 29  # all was there


@pytest.mark.parametrize(("finished", "calls_left"), [(0, 25), (1, 17), (3, 5)])
def test_a_full_disk(
    medvar: Medvar,
    slices: Path,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: int,
    calls_left: int,
) -> None:
    """What lies on a full disk would fill it for good, or what is finished would be encoded again."""
    tokens, left = tmp_path / "tokens", finished
    flush = storage.flush_to_disk

    def full(file: Any) -> None:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left -= 1
        flush(file)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "flush_to_disk", full)
        run = medvar("encode", slices, tokenizer, tokens)
    assert run.code == 1
    assert "No space left on device); finished blocks are kept" in run.err
    kept = sorted(path.name for path in tokens.rglob("*") if path.suffix in {".npy", ".tmp"})
    assert kept == ["0000000000.npy", "0000000008.npy", "0000000016.npy"][:finished]
    batch, calls = token_pyramids._encode_batch, 0

    def counting(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return batch(*arguments)

    monkeypatch.setattr(token_pyramids, "_encode_batch", counting)
    assert medvar("encode", slices, tokenizer, tokens).code == 0
    assert calls == calls_left
    assert {path.name for path in tokens.iterdir()} == {
        f"pyramids-{name}{suffix}" for name in ("train", "held-out") for suffix in (".npy", ".json")
    }


def test_mismatched_files_are_reported(medvar: Medvar, slices: Path, tokenizer: Path, tmp_path: Path) -> None:
    """A transformer would be trained on the tokens of another tokenizer, or of other slices."""
    tokens = tmp_path / "tokens"
    assert medvar("encode", slices, tokenizer, tokens, "--variants", 2).code == 0
    other = load_tokenizer(tokenizer)
    with torch.no_grad():
        other.quantizer.codebook.weight[0] += 0.1
    save_tokenizer(tmp_path / "other.safetensors", other)
    note = tokens / "pyramids-train.json"
    cases: list[tuple[Path, str, tuple[str, ...]]] = [
        (tmp_path / "other.safetensors", "the codebooks differ", ()),
        (tokenizer, "variants=5 are needed", ("variants=5",)),
    ]
    for path, said, more in cases:
        run = train(medvar, slices, path, tmp_path / "run", f"pyramids={tokens}", *more)
        assert run.code == 1
        assert said in run.err
    values = json.loads(note.read_text())
    for text, said in (
        (json.dumps({**values, "count": 7}), "contradicts its JSON file"),
        ("{", "not contain complete"),
    ):
        note.write_text(text)
        run = train(medvar, slices, tokenizer, tmp_path / "run", f"pyramids={tokens}")
        assert run.code == 1
        assert said in run.err
    for arguments in ((tmp_path / "none", tokenizer), (slices, tmp_path / "none")):
        run = medvar("encode", *arguments, tmp_path / "b")
        assert (run.code, run.out) == (1, "")


def test_a_bundle_encodes(medvar: Medvar, slices: Path, tokenizer: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Who has a bundle and no weights could not encode, or not the same tokens."""
    for name, source in (("theirs", tiny_bundle), ("ours", tokenizer)):
        run = medvar("encode", slices, source, tmp_path / name, "--device", "cpu")
        assert run.code == 0, run.err
    ours, theirs = (np.load(tmp_path / name / "pyramids-train.npy") for name in ("ours", "theirs"))
    assert (ours == theirs).mean() > 0.99
    read_back, _ = write_weights(read_bundle(tiny_bundle), tmp_path / "base")  # as fine-tuning does
    for name, same in (("exported", tokenizer), ("read-back", read_back)):
        trained = train(medvar, slices, same, tmp_path / name, f"pyramids={tmp_path / 'theirs'}")
        assert trained.code == 0, trained.err
        assert not (tmp_path / name / "pyramids-train.npy").exists()


def test_a_bundle_with_other_codes_encodes_other_tokens(medvar: Medvar, slices: Path, tmp_path: Path) -> None:
    """Their graphs may be equal, so an encoder kept from the bundle before would be used under the new one's name."""
    labels, folder = LabelSpace(modality=("CT", "MR")), tmp_path / "bundle"
    config = ResolutionConfig(16, (1, 2, 4), 32, 12, patch=4, margin=2, refiner_widths=(8, 8), refiner_blocks=1)
    transformer = Transformer(TransformerConfig((1, 2, 4), 32, 12, labels.sizes, depth=1, width=8, heads=1))
    save_transformer(tmp_path / "transformer.safetensors", transformer, labels)
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = ResolutionTokenizer(config)
        model.load_state_dict({name: torch.randn_like(value) * 0.3 for name, value in model.state_dict().items()})
        save_tokenizer(tmp_path / "tokenizer.safetensors", model)
        shutil.rmtree(folder, ignore_errors=True)
        about = Description("tiny", "MIT", (), "nobody", "# tiny\n")
        weights = tmp_path / "tokenizer.safetensors", tmp_path / "transformer.safetensors"
        export_bundle(*weights, folder, about, log=lambda _: None)
        run = medvar("encode", slices, folder, tmp_path / f"tokens-{seed}", "--device", "cpu")
        assert run.code == 0, run.err
        made.append(np.load(tmp_path / f"tokens-{seed}" / "pyramids-train.npy"))
        images = torch.from_numpy(SliceDataset(slices, "train").batch(range(COUNT)))
        expected = torch.cat(model.eval().encode(images), 1).numpy()
        assert (made[-1][0] == expected).mean() > 0.99
    assert (made[0] == made[1]).mean() < 0.5


def test_a_bundle_without_a_codebook_is_refused(
    medvar: Medvar, slices: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of encoding would end in tokens that training refuses."""
    monkeypatch.setattr(Bundle, "codebook", lambda _: None)  # as of bundles that were exported long ago
    run = medvar("encode", slices, tiny_bundle, tmp_path / "tokens")
    assert (run.code, run.out) == (1, "")
    assert "Export that model again, or give the tokenizer" in run.err
    assert not (tmp_path / "tokens").exists()
