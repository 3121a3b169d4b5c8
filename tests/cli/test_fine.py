"""`medvar fine`, and drawing with the transformer that it puts in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvar_engine.bundle import FINE, read_bundle
from medvar_engine.write.provenance import read_trace


def test_from_the_weights_to_an_image_made_again(
    medvar: Callable[..., Any], tiny_bundle: Path, tiny_fine: Path, tiny_pair: Path, tmp_path: Path
) -> None:
    """Whoever trained a small transformer could not use it, nor anybody tell which images it helped to draw."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    assert "smaller transformer" not in medvar("info", folder).out
    run = medvar("fine", folder, tiny_fine, "--from-scale", 2)
    assert (run.code, run.lines) == (0, [str(folder)]), run.err
    bundle = read_bundle(folder)
    assert bundle.sha256[FINE] == read_bundle(tiny_pair).sha256[FINE]
    told = medvar("info", folder).out
    assert "from 2 on by a smaller transformer" in told
    assert f"{bundle.collaborative_digest} with --collaborative" in told
    own, both = tmp_path / "own", tmp_path / "both"
    assert medvar("generate", "--bundle", folder, "--out", own, "--seed", 7).code == 0
    made = medvar("generate", "--bundle", folder, "--out", both, "--seed", 7, "--count", 2, "--collaborative")
    assert made.code == 0, made.err
    first, second = (read_trace(path / "seed7.png") for path in (own, both))
    assert (first.model, second.model) == (bundle.digest, bundle.collaborative_digest)
    assert first.pyramid.prefix(2) == second.pyramid.prefix(2)
    assert first.pyramid != second.pyramid
    for path in (own, both):  # nobody needs to say which of the two it was
        run = medvar("replay", path / "seed7.png", "--bundle", folder)
        assert (run.code, run.out.strip().endswith("pixel for pixel")) == (0, True), run.err
    a_set = tmp_path / "set"
    run = medvar(
        "generate", "--bundle", folder, "--out", a_set, "--layout", "imagefolder", "--seed", 7, "--collaborative"
    )
    assert run.code == 0, run.err
    (picture,) = a_set.rglob("*.png")
    assert read_trace(picture).pyramid == second.pyramid
    assert str(bundle.collaborative_digest) in (a_set / "README.md").read_text()
    run = medvar("replay", both / "seed7.png", "--bundle", tiny_bundle)
    assert run.code == 1
    assert "another model" in run.err
    assert "a transformer for fine scales" in run.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((), "has no transformer for the fine scales"),
        (("--layout", "shards"), "has no transformer for the fine scales"),
        (("--server", "http://127.0.0.1:1"), "leave out --collaborative"),
    ],
)
def test_what_cannot_be_drawn_by_both_is_told(
    medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    """Images would be drawn by one transformer although two were asked for."""
    chosen = () if "--server" in more else ("--bundle", tiny_bundle)
    run = medvar("generate", *chosen, "--out", tmp_path / "out", "--collaborative", *more)
    assert run.code == 1
    assert says in run.err
    assert not (tmp_path / "out").exists()


def test_a_wrong_call_changes_nothing(
    medvar: Callable[..., Any], tiny_bundle: Path, tiny_weights: tuple[Path, Path], tiny_fine: Path, tmp_path: Path
) -> None:
    """A slip would cost the bundle, or end in a traceback."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert medvar("fine", folder, tiny_fine).code == 2
    assert medvar("fine", folder, tiny_fine, "--from-scale", 0).code == 2
    (tmp_path / "none.safetensors").write_bytes(b"none")
    for wrong in (tmp_path / "none.safetensors", tmp_path / "nowhere.safetensors", tiny_weights[0]):
        assert medvar("fine", folder, wrong, "--from-scale", 2).code == 1
    run = medvar("fine", folder, tiny_fine, "--from-scale", 4)
    assert (run.code, "1…3" in run.err) == (1, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run = medvar("export", *tiny_weights, tmp_path / "new", "--licence", "MIT", "--fine-transformer", tiny_fine)
    assert (run.code, "--fine-from" in run.err) == (1, True)
