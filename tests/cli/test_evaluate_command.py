"""``medvar evaluate``: what is told when the input is wrong, and a page of several evaluations."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.cli.main import app
from medvar_engine.conditions import Condition
from medvar_engine.evaluate import utility
from medvar_engine.evaluate.pairs import pair_quality, segmentation_utility
from medvar_engine.generate.trace import Trace
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def written(path: Path, name: str, parameters: int, data: str = "d") -> Path:
    """The JSON of an evaluation, as far as comparing reads it."""
    seen = {"encoder": {"name": "descriptor"}, "rows": {"synthetic": {"frechet": {"value": 1000 / parameters}}}}
    found = {"name": name, "data": data, "parameters": parameters, "seconds_an_image": 0.1, "encoders": [seen]}
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_several_evaluations_become_one_page(tmp_path: Path) -> None:
    """Nobody could see what a larger model is worth."""
    reports = [written(tmp_path / f"{n}.json", f"model <{n}>", n) for n in (1000, 2000)]
    found = run("compare", *reports, "--out", tmp_path / "page.html")
    assert found.exit_code == 0, found.output
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "model &lt;1000&gt;" in html
    assert "model &lt;2000&gt;" in html
    assert "<svg" in html


def test_evaluations_on_different_slices_are_reported(tmp_path: Path) -> None:
    """Figures that cannot be compared would be read as a ranking."""
    reports = [written(tmp_path / f"{data}.json", data, 1000, data) for data in "ab"]
    found = run("compare", *reports, "--out", tmp_path / "page.html")
    assert found.exit_code == 0, found.output
    assert "on different slices" in found.output


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"encoders": [{}]}', '{"encoders": null}'])
def test_files_other_than_evaluations_are_named_and_nothing_is_written(text: str, tmp_path: Path) -> None:
    """A wrong file would give a traceback, or a page with half of the models."""
    good, bad = written(tmp_path / "good.json", "good", 1000), tmp_path / "bad.json"
    bad.write_text(text, encoding="utf-8")
    found = run("compare", good, bad, "--out", tmp_path / "page.html")
    assert found.exit_code != 0
    assert "bad.json" in str(found.exception)
    assert type(found.exception).__name__ == "MedvarError"
    assert not (tmp_path / "page.html").exists()


def test_missing_slices_are_reported_before_any_work(tmp_path: Path) -> None:
    """Images would be made for an hour, to be compared with nothing."""
    found = run("images", tmp_path, "--data", tmp_path / "nowhere", "--out", tmp_path / "page.html")
    assert type(found.exception).__name__ == "MedvarError"
    assert "nowhere" in str(found.exception)
    assert list(tmp_path.iterdir()) == []


def test_utility_is_printed_and_saved(
    prepared: Callable[..., Path], make_trace: Callable[..., Trace], tmp_path: Path
) -> None:
    """Figures of an hour of training would be lost with the window that showed them."""
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "ct3", "mr1", "mr2", "mr3"], size=16)
    (tmp_path / "made").mkdir()
    rng = np.random.default_rng(0)
    for number, condition in enumerate([Condition("CT", "chest", "axial"), Condition("MR", "brain", "axial")] * 2):
        pixels = rng.uniform(-1, 1, (16, 16)).astype(np.float32)
        image = OutputImage(pixels, make_trace(condition=condition), 1.0, 0.0, 1.0, "arbitrary")
        write_png(tmp_path / "made" / f"{number}.png", image)
    few = ("--data", data, "--steps", 1, "--seeds", 1)
    found = run("utility", tmp_path / "made", *few, "--out", tmp_path / "utility.json")
    assert found.exit_code == 0, found.output
    values = json.loads((tmp_path / "utility.json").read_text())
    assert (values["task"], values["classes"], values["models"]) == ("region", ["brain", "chest"], ["ab" * 32])
    for name in ("real", "real and synthetic", "synthetic"):
        assert f"{name:<20} {values['accuracy'][name]['value']:.3f}" in found.output
    wrong = run("utility", tmp_path / "made", *few, "--task", "plane", "--out", tmp_path / "other.json")
    assert "at least two" in str(wrong.exception)
    assert not (tmp_path / "other.json").exists()


def test_an_evaluation_is_added_to_card_and_info(
    tiny_bundle: Path, prepared: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks for owners of a model: the way from images to a card that says how good they are."""
    from medvar_engine.backends.onnx import OnnxBackend

    opened: list[object] = []
    start = OnnxBackend.__init__

    def counted(self: OnnxBackend, *arguments: object, **named: object) -> None:
        opened.append(self)
        start(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxBackend, "__init__", counted)
    short = functools.partial(utility.measure_utility, steps=1, seeds=1)
    monkeypatch.setattr(utility, "measure_utility", short)
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "ct3", "mr1", "mr2", "mr3"], size=16)
    bundle, page = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")), tmp_path / "page.html"
    few = ("--count", 24, "--steps", 2, "--device", "cpu", "--utility", "region")
    found = run("images", bundle, "--data", data, "--out", page, *few)
    assert found.exit_code == 0, found.output
    assert len(opened) <= 2  # the set's worker has one of its own
    report = page.with_suffix(".json")
    assert f"medvar evaluate card {bundle} {report}" in found.output.replace("\n", " ")
    assert "classifying the region of held-out patients" in page.with_suffix(".md").read_text(encoding="utf-8")
    written = page.with_suffix(".md").read_text(encoding="utf-8")
    for measure in ("loss by drawing the finest scale", "AUC of membership", "time per image, s"):
        assert measure in written
    told = run("card", bundle, report)
    assert told.exit_code == 0, told.output
    assert page.with_suffix(".md").read_text(encoding="utf-8").strip() in read_bundle(bundle).card
    info = CliRunner().invoke(app, ["info", str(bundle)])
    assert "evaluated   24 images; Fréchet distance by descriptor" in info.output
    before = CliRunner().invoke(app, ["info", str(tiny_bundle)])
    assert "evaluated   not" in before.output


def test_a_bundle_of_pairs_is_evaluated(
    pair_bundle: Bundle, pair_slices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners of a model of pairs would get a traceback after an hour, or a page without a word on masks."""
    monkeypatch.setattr(pair_quality, "STEPS", 2)
    short = functools.partial(segmentation_utility.measure_segmentation, steps=2, seeds=1)
    monkeypatch.setattr(segmentation_utility, "measure_segmentation", short)
    page = tmp_path / "page.html"
    few = ("--count", 24, "--steps", 2, "--device", "cpu", "--utility", "segmentation")
    found = run("images", pair_bundle.path, "--data", pair_slices, "--out", page, *few)
    assert found.exit_code == 0, found.output
    values = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert values["pairs"]["structures"] == ["square", "bar"]
    assert 0 <= values["pairs"]["pair_copies"]["value"] <= 1
    assert values["stacks"]["CT abdomen axial"]["spacing_mm"] == 3
    assert set(values["utility"]["dice"]) == {"real", "real and synthetic", "synthetic"}
    assert values["reconstruction"]["mask_dice"] is not None
    written = page.with_suffix(".md").read_text(encoding="utf-8")
    for sentence in ("between masks and a segmenter", "difference between neighbouring slices", "Dice of segment"):
        assert sentence in written
    assert "Masks and stacks" in page.read_text(encoding="utf-8")


def test_pairs_need_slices_with_the_same_masks(
    pair_bundle: Bundle, prepared: Callable[..., Path], tmp_path: Path
) -> None:
    """What cannot be compared is told before images are made."""
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "ct3"], size=16)
    found = run("images", pair_bundle.path, "--data", data, "--out", tmp_path / "page.html")
    assert "pairs makes masks of square, bar, but the slices" in str(found.exception)
    assert not (tmp_path / "page.html").exists()


def test_a_learning_curve_of_segmentation(pair_bundle: Bundle, pair_slices: Path, tmp_path: Path) -> None:
    """Numbers, and the image of them, in files; nothing for images without masks."""
    named = ("--modality", "CT", "--region", "abdomen", "--plane", "axial")
    asked = ("generate", "--bundle", pair_bundle.path, "--count", 6, "--layout", "nnunet", *named)
    made = CliRunner().invoke(app, [*map(str, asked), "--out", str(tmp_path / "set")])
    assert made.exit_code == 0, made.output
    few = ("--data", pair_slices, "--task", "segmentation", "--steps", 1, "--seeds", 1, "--patients", 2)
    found = run("utility", tmp_path / "set", *few, "--out", tmp_path / "utility.json")
    assert found.exit_code == 0, found.output
    values = json.loads((tmp_path / "utility.json").read_text(encoding="utf-8"))
    assert values["task"] == "segmentation"
    assert [one["patients"] for one in values["curve"]] == [2, 5]
    assert f"real, 2 patients     {values['curve'][0]['metrics']['real']['value']:.3f}" in found.output
    assert "<svg" in (tmp_path / "utility.html").read_text(encoding="utf-8")
