"""The mean of two networks, with which the shipped model was made."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medvar_engine.conditions import LabelSpace
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import load_transformer, save_transformer

SCRIPT = Path(__file__).parents[2] / "medvar_engine" / "train" / "recipes" / "mean_weights.py"
LABELS = LabelSpace(("CT", "MR"))


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    """The function of the script, which is no part of the installed package."""
    found: Callable[[list[str]], None] = runpy.run_path(str(SCRIPT))["main"]
    return found


def saved(path: Path, seed: int, depth: int = 1, labels: LabelSpace = LABELS) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig((1, 2), 8, 4, labels.sizes, depth=depth, width=8, heads=2)).eval()
    save_transformer(path, model, labels)
    return model


def test_the_mean_lies_between_both(main: Callable[[list[str]], None], tmp_path: Path) -> None:
    """The model could not be made again as its card says."""
    first, second = saved(tmp_path / "a", 0), saved(tmp_path / "b", 1)
    main([str(tmp_path / "a"), str(tmp_path / "b"), "0.25", str(tmp_path / "mean")])
    mean, labels = load_transformer(tmp_path / "mean")
    assert labels == LABELS
    for name, weights in mean.state_dict().items():
        expected = 0.75 * first.state_dict()[name].double() + 0.25 * second.state_dict()[name].double()
        torch.testing.assert_close(weights.double(), expected, rtol=1e-6, atol=1e-7)


def test_labels_that_training_added_are_left_out(main: Callable[[list[str]], None], tmp_path: Path) -> None:
    """A name would get the embedding of another one, or the unconditional row that of a name."""
    saved(tmp_path / "a", 0)
    second = saved(tmp_path / "b", 1, labels=LabelSpace(("CT", "MR", "US")))
    main([str(tmp_path / "a"), str(tmp_path / "b"), "1", str(tmp_path / "mean")])
    mean, labels = load_transformer(tmp_path / "mean")
    assert labels == LABELS
    embedding = second.get_parameter("labels.0.weight")
    torch.testing.assert_close(mean.get_parameter("labels.0.weight"), embedding[[0, 1, 3]])
    torch.testing.assert_close(mean.head.weight, second.head.weight)


@pytest.mark.parametrize(
    ("second", "depth", "share", "said"),
    [("b", 2, "0.5", "different forms"), ("b", 1, "1.5", "0 to 1"), ("missing", 1, "0.5", "missing")],
)
def test_networks_without_a_mean(
    main: Callable[[list[str]], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    second: str,
    depth: int,
    share: str,
    said: str,
) -> None:
    """A mistake on the command line ends in one sentence, and writes nothing."""
    saved(tmp_path / "a", 0)
    saved(tmp_path / "b", 1, depth)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a"), str(tmp_path / second), share, str(tmp_path / "mean")])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def test_other_labels_have_no_mean(
    main: Callable[[list[str]], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CT would be the mean of CT and MR."""
    saved(tmp_path / "a", 0)
    saved(tmp_path / "b", 1, labels=LabelSpace(("MR", "CT")))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a"), str(tmp_path / "b"), "0.5", str(tmp_path / "mean")])
    assert "different forms" in capsys.readouterr().err
