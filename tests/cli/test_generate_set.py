"""`medvar generate`, where it makes a set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvar_engine.sets.image_set import ImageSet

MIX = (
    "conditions:\n- {modality: CT, region: chest, plane: axial, count: 3}\n- {modality: MR, region: brain, count: 2}\n"
)
Generate = Callable[..., Any]


@pytest.fixture
def generate(medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> Generate:
    """`medvar generate --mix` with the tiny bundle, into ``tmp_path/out``."""
    (tmp_path / "mix.yaml").write_text(MIX)

    def run(*arguments: object, mixture: bool = True) -> Any:
        made_of = ("--mix", tmp_path / "mix.yaml") if mixture else ()
        return medvar(
            "generate", "--bundle", tiny_bundle, "--out", tmp_path / "out", "--device", "cpu", *made_of, *arguments
        )

    return run


def test_a_mixture_becomes_shards(generate: Generate, tmp_path: Path) -> None:
    """The plainest call would not work, or not say what it made."""
    run = generate()
    assert (run.code, run.lines) == (0, [str(tmp_path / "out")]), run.err
    assert "3  CT chest axial" in run.err
    assert "2  MR brain" in run.err
    images = ImageSet.open(tmp_path / "out")
    assert [made.trace.request.seed for made in images] == list(range(5))
    again = generate("--count", 5, "--workers", 1, "--batch", 2)
    assert again.code == 0
    assert "found whole" in again.err


def test_a_larger_batch_makes_larger_units(generate: Generate, tmp_path: Path) -> None:
    """Whoever has the memory for 200 images at once would get 64 without a word."""
    asked = ("--region", "brain", "--format", "shards", "--guidance", 0)
    run = generate(*asked, "--count", 70, "--batch", 70, mixture=False)
    assert run.code == 0, run.err
    assert [path.name for path in (tmp_path / "out" / "units").glob("*.npy")] == ["00000.npy"]
    again = generate(*asked, "--count", 71, "--batch", 2, mixture=False)
    assert again.code == 0, again.err
    assert len(ImageSet.open(tmp_path / "out")) == 71


def test_a_set_of_one_condition(generate: Generate, tmp_path: Path) -> None:
    """Whoever wants many images of one kind would have to write a file first."""
    asked = ("--region", "brain", "--seed", 7, "--guidance", 2, "--format", "shards", "--count", 3)
    assert generate(*asked, mixture=False).code == 0
    requests = [made.trace.request for made in ImageSet.open(tmp_path / "out")]
    assert [(one.condition.region, one.seed, one.sampling.guidance) for one in requests] == [
        ("brain", seed, 2) for seed in (7, 8, 9)
    ]
    larger = generate(*asked[:-1], 4, mixture=False)
    assert larger.code == 0
    assert len(ImageSet.open(tmp_path / "out")) == 4
    other = generate("--region", "brain", "--seed", 8, "--format", "shards", "--count", 4, mixture=False)
    assert (other.code, other.out) == (1, "")
    assert "mix differ" in other.err


def test_files_by_label(generate: Generate, tmp_path: Path) -> None:
    """`--format` would be ignored where there is a mixture."""
    run = generate("--format", "nifti")
    assert run.code == 0
    assert len(list((tmp_path / "out" / "images" / "mr-brain").glob("*.nii.gz"))) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--count", 6), "5 images together"),
        (("--region", "brain"), "a condition are given in"),
        (("--seed", 3), "leave them out here"),
        (("--guidance", 9), "leave them out here"),
        (("--show-scales",), "do not apply"),
        (("--overwrite",), "do not apply"),
        (("--layout", "bids", "--format", "png"), "supports nifti, not png"),
        (("--layout", "nnunet"), "one modality per channel"),
        (("--cluster", "tcp://127.0.0.1:1"), "No cluster answers"),
    ],
)
def test_impossible_requests_are_refused(
    generate: Generate, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], says: str
) -> None:
    """A mistake would be a traceback, or another set than asked for."""
    monkeypatch.setattr("medvar_engine.parallel._CONNECT_SECONDS", 1)
    run = generate(*arguments)
    assert (run.code, run.out) == (1, "")
    assert says in run.err
    assert "Traceback" not in run.err


def test_a_label_that_the_model_does_not_know(generate: Generate, tmp_path: Path) -> None:
    """A night would be spent on another condition; the line of the mistake would have to be searched for."""
    (tmp_path / "mix.yaml").write_text(MIX.replace("brain", "brian"))
    run = generate()
    assert run.code == 1
    assert "mix.yaml, line 3: conditions[1]: Unknown region 'brian'. Did you mean 'brain'?" in run.err
    assert not (tmp_path / "out").exists()


def test_a_condition_that_was_not_trained_on(generate: Generate, tmp_path: Path) -> None:
    """Images of what the model never saw would be taken for good ones."""
    (tmp_path / "mix.yaml").write_text("conditions:\n- {modality: CT, region: brain, count: 1}\n")
    assert "was not trained on any slice of CT brain" in generate().err


def test_an_interrupted_run_continues(generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C would leave half a file, a traceback, or nobody knowing how to go on."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medvar_engine.generate.generator.Generator.image", stop)
        run = generate()
    assert run.code == 130
    assert "Run the same command again" in run.err
    assert not list(tmp_path.rglob("*.tmp"))
    assert generate().code == 0
