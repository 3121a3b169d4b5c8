"""`medvar encode`, and training on what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.train import pyramids, transformer_stage

Medvar = Callable[..., Any]
COUNT = 20  # slices of each of two people


@pytest.fixture
def slices(tmp_path: Path, prepared: Callable[..., Path]) -> Path:
    """Of two people, one of them held out."""
    return prepared(tmp_path / "slices", ["ct1", "ct2"], size=16, slices=COUNT, holdout=("ct2",))


@pytest.fixture
def tokenizer(tiny_weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained tokenizer, and blocks of work so small that there are several."""
    monkeypatch.setattr(pyramids, "_BATCH", 4)
    monkeypatch.setattr(pyramids, "_BLOCK", 8)
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


def test_stopped_and_gone_on_with(
    medvar: Medvar, slices: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of encoding would be lost, or end in other tokens."""
    assert medvar("encode", slices, tokenizer, tmp_path / "whole").code == 0
    batch, calls = pyramids._encode_batch, 0

    def stopping(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:  # in the second block: 2 batches × 4 variants a block
            raise KeyboardInterrupt
        return batch(*arguments)

    monkeypatch.setattr(pyramids, "_encode_batch", stopping)
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


def test_what_does_not_fit_is_told(medvar: Medvar, slices: Path, tokenizer: Path, tmp_path: Path) -> None:
    """A transformer would be trained on the tokens of another tokenizer, or of other slices."""
    tokens = tmp_path / "tokens"
    assert medvar("encode", slices, tokenizer, tokens, "--variants", 2).code == 0
    content = tokenizer.read_bytes()
    (tmp_path / "other.safetensors").write_bytes(content[:-4] + bytes(byte ^ 1 for byte in content[-4:]))
    note = tokens / "pyramids-train.json"
    cases: list[tuple[Path, str, tuple[str, ...]]] = [
        (tmp_path / "other.safetensors", "was not made from", ()),
        (tokenizer, "variants=5 are asked for", ("variants=5",)),
    ]
    for path, said, more in cases:
        run = train(medvar, slices, path, tmp_path / "run", f"pyramids={tokens}", *more)
        assert run.code == 1
        assert said in run.err
    values = json.loads(note.read_text())
    for text, said in ((json.dumps({**values, "count": 7}), "not what its note says"), ("{", "does not hold whole")):
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
