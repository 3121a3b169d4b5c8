from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path

import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.train.__main__ import main
from medvar_engine.train.config import config_to_dict, load_config

BASE = ("stage=tokenizer", "data=slices", "out=run")


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", 'stage = "tokenizer"\nsteps = 7'), ("a.yaml", "stage: tokenizer\nsteps: 7")]
)
def test_overrides_win_over_the_file(tmp_path: Path, name: str, text: str) -> None:
    """What a person types would be ignored."""
    path = tmp_path / name
    path.write_text(text)
    config = load_config(path, ["data=~/slices", "out=run", "learning_rate=1e-3", "augment=false", "factors=[region]"])
    assert (config.stage, config.steps, config.learning_rate, config.augment) == ("tokenizer", 7, 1e-3, False)
    assert config.data == Path.home() / "slices"
    assert config.factors == ("region",)
    assert load_config(path, ["data=a", "out=b", "steps=8"]).steps == 8
    assert config_to_dict(config)["out"] == "run"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("stage=tokenizer", "data=a"), "Missing setting 'out'"),
        ((*BASE, "batchsize=4"), "Unknown setting 'batchsize'. Did you mean 'batch_size'"),
        ((*BASE, "steps"), "name=value"),
        ((*BASE, "steps=many"), "steps must be a whole number, but is 'many'"),
        ((*BASE, "steps=true"), "steps must be a whole number, but is True"),
        ((*BASE, "steps=0"), "steps must be at least 1"),
        ((*BASE, "steps=[1"), "cannot be read"),
        ((*BASE, "learning_rate=fast"), "learning_rate must be a number, but is 'fast'"),
        ((*BASE, "precision=float16"), "precision is one of auto, float32, bfloat16"),
        ((*BASE, "factors=region"), "factors must be a list"),
        ((*BASE, "factors=[organ]"), "not 'organ'"),
        ((*BASE, "factors=[1]"), r"factors\[0\] must be a text, but is 1"),
        ((*BASE, "seed=-1"), "seed must be at least 0"),
        ((*BASE, "learning_rate=true"), "learning_rate must be a number"),
        ((*BASE, "learning_rate=.nan"), "learning_rate must be a finite number"),
        ((*BASE, "augment=2"), "augment must be true or false"),
        ((*BASE, "ema=1.5"), "ema must be at most 1, but is 1.5"),
        ((*BASE, "seed=99999999999"), "seed must be at most 1000000"),
        (("stage=decoder", "data=a", "out=b"), "stage is one of tokenizer, transformer"),
        (("stage=transformer", "data=a", "out=b"), "needs a trained tokenizer"),
    ],
)
def test_a_wrong_setting_is_named(overrides: tuple[str, ...], message: str) -> None:
    """A run would start with a setting that means something else, or stop hours later."""
    with pytest.raises(MedvarError, match=message):
        load_config(None, overrides)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A typing mistake in a file would be a traceback."""
    for name, content in (
        ("missing.toml", None),
        ("a.toml", b"stage = "),
        ("a.yaml", b"{"),
        ("b.yaml", b"- 1\n"),
        ("c.toml", b"\xff"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(MedvarError, match=name):
            load_config(tmp_path / name)


def test_recipes_can_be_read() -> None:
    """The recipe that the tutorial names would not start."""
    recipes = importlib.resources.files("medvar_engine.train").joinpath("recipes")
    with importlib.resources.as_file(recipes) as folder:
        paths = sorted(folder.glob("*.toml"))
        assert paths
        for path in paths:
            assert load_config(path, ["data=slices", "out=run", "tokenizer=t.safetensors"]).preset


def exit_code(*arguments: str) -> object:
    """How ``python -m medvar_engine.train`` ends."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_ctrl_c_says_how_to_continue(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever stops a run by hand would see a traceback, and a script not know that it was stopped."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medvar_engine.train.run_training.run", interrupted)
    assert exit_code("stage=tokenizer", "data=slices", "out=run") == 130
    assert "--resume" in capsys.readouterr().err


def test_the_command_shows_errors_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who mistypes a setting would have to read Python."""
    assert exit_code("stage=tokenizer", f"data={tmp_path}", f"out={tmp_path / 'run'}") == 1
    assert "medvar prepare" in capsys.readouterr().err
    assert exit_code("stage=tokenizer", "--processes=none") == 2
    assert "--processes" in capsys.readouterr().err
    assert exit_code("stage=tokenizer", "--resume", "stpes=3") == 1
    assert "Unknown setting 'stpes'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_says_how_to_install_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Who has only the plugin installed would see a traceback, or `pip install` without what is missing."""
    for name in [name for name in sys.modules if name.startswith("medvar_engine.train.run_training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert exit_code("stage=tokenizer", "data=slices", "out=run") == 1
    assert "pip install 'napari-medvar[train]'" in capsys.readouterr().err
