"""An evaluation goes into the card of the bundle that it judges, and nothing else about the bundle changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.report.card_section import EVALUATION, headline, put_into_card, to_card
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return read_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


def evaluation(bundle: Bundle, distance: float = 12.5) -> dict[str, Any]:
    """The JSON of a report, as far as a card shows it."""

    def row(value: float | None) -> dict[str, Any]:
        return {
            "frechet": {"value": value, "low": 11.0, "high": 13.4},
            **{name: {"value": 0.5, "low": None, "high": None} for name in ("kid", "precision", "recall")},
        }

    return {
        "version": "1.2",
        "models": [bundle.bundle_id],
        "counts": {"synthetic": 256, "training": 100, "held out": 20},
        "findings": [{"title": "The model memorises", "text": "9 % of the images.", "grave": True}],
        "encoders": [
            {"encoder": {"name": "descriptor"}, "rows": {"synthetic": row(distance), "real, other people": row(None)}}
        ],
        "memorisation": {"flagged": {"value": 0.09}},
    }


def written(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_the_card_gets_the_evaluation_and_the_model_stays_the_same(bundle: Bundle, tmp_path: Path) -> None:
    """Breaks for whoever has images of before: their model would no longer be found; and the card would say nothing."""
    report, before = written(tmp_path / "report.json", evaluation(bundle)), bundle.card
    after = put_into_card(bundle, report)
    assert after.bundle_id == bundle.bundle_id
    assert after.card.startswith(before.rstrip())
    for expected in (
        "**The model memorises.** 9 % of the images.",
        "12.5 (11 to 13.4)",
        "256 synthetic images",
        EVALUATION,
    ):
        assert expected in after.card + repr(sorted(after.sha256))
    assert json.loads(after.read(EVALUATION)) == json.loads(report.read_text())
    assert {name: after.sha256[name] for name in bundle.sha256 if name.endswith(".onnx")} == {
        name: digest for name, digest in bundle.sha256.items() if name.endswith(".onnx")
    }
    assert headline(bundle) is None
    assert "12.5 (11 to 13.4)" in str(headline(after))
    assert "9.0% look like copies" in str(headline(after))


def test_the_second_replaces_the_first(bundle: Bundle, tmp_path: Path) -> None:
    """Breaks for readers of a card: two evaluations beside each other, of which one is old."""
    first = put_into_card(bundle, written(tmp_path / "1.json", evaluation(bundle, 12.5)))
    again = put_into_card(first, written(tmp_path / "1.json", evaluation(bundle, 12.5)))
    assert again.card == first.card
    second = put_into_card(again, written(tmp_path / "2.json", evaluation(bundle, 77.5)))
    assert second.card.count("## Evaluation") == 1
    assert "77.5" in second.card
    assert "12.5" not in second.card


def test_earlier_traces_can_still_be_replayed(bundle: Bundle, tmp_path: Path) -> None:
    """Breaks for reproduction: an evaluated bundle would not be the model that made an image."""
    from medvar_engine.backends import onnx

    def trace(model: Bundle) -> Any:
        generator = Generator(onnx.OnnxBackend(model, device="cpu"))
        (made,) = generator.finish(generator.start([Request(seed=3)])).traces
        return made

    before = trace(bundle)
    after = trace(put_into_card(bundle, written(tmp_path / "report.json", evaluation(bundle))))
    assert after.bundle_id == before.bundle_id
    assert after.pyramid == before.pyramid


def test_an_evaluation_of_another_model_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """Breaks for trust: a card would praise a model for images of another."""
    before = (bundle.path / "bundle.json").read_bytes()
    for models in (["f" * 64], [bundle.bundle_id, "f" * 64], [], None):
        report = written(tmp_path / "report.json", {**evaluation(bundle), "models": models})
        with pytest.raises(MedvarError, match="another model"):
            put_into_card(bundle, report)
    assert (bundle.path / "bundle.json").read_bytes() == before
    assert not (bundle.path / EVALUATION).exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: [],
        lambda values: {},
        lambda values: {**values, "findings": None},
        lambda values: {**values, "findings": [{"title": 3}]},
        lambda values: {**values, "encoders": [{}]},
        lambda values: {**values, "counts": {"synthetic": "many"}},
    ],
)
def test_files_that_are_not_evaluations_are_refused(
    bundle: Bundle, tmp_path: Path, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    """Breaks for the only copy of a bundle: a wrong file would give a card that is half one."""
    with pytest.raises(MedvarError, match=r"report\.json.*not an evaluation"):
        put_into_card(bundle, written(tmp_path / "report.json", spoil(evaluation(bundle))))
    with pytest.raises(MedvarError, match="nowhere"):
        put_into_card(bundle, tmp_path / "nowhere.json")
    assert read_bundle(bundle.path).card == bundle.card


def test_text_is_escaped(bundle: Bundle) -> None:
    """Breaks for whoever shows cards: a name from elsewhere must not end the section, nor become markup."""
    values = evaluation(bundle)
    values["findings"][0]["text"] = "<!-- end of the evaluation -->\n# Safe <script> | for patients"
    text = to_card(values)
    assert "<" not in text
    assert text.count("\n#") == 0


def test_a_damaged_evaluation_in_a_bundle_is_named(bundle: Bundle, tmp_path: Path) -> None:
    """Breaks for `medvar info`, which would end in a traceback."""
    from medvar_engine.bundle.add_files import add_to_bundle

    after = add_to_bundle(bundle.path, {EVALUATION: b'{"counts": 3}'})
    with pytest.raises(MedvarError, match=r"evaluation\.json"):
        headline(after)
