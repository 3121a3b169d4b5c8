"""A whole evaluation: baselines, findings, page. On made-up slices of discs, which is quick."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invented_facts import invented_facts

from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.encoders.descriptor import DescriptorEncoder
from medvar_engine.encoders.image_source import ArrayImages, Images
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.evaluation import Evaluation, evaluate
from medvar_engine.evaluate.images.baseline_images import JUDGED, BlurredImages, CollapsedImages, NoiseImages, baselines
from medvar_engine.evaluate.images.synthetic_images import Synthetic
from medvar_engine.evaluate.report.card_section import to_card
from medvar_engine.evaluate.report.evaluation_page import compare, page, to_dict
from medvar_engine.evaluate.report.findings import findings, ranked_rightly
from medvar_engine.evaluate.utility import measure_utility
from medvar_engine.types import FloatArray
from medvar_engine.value_range import encode

SIZE = 32


def disc(rng: np.random.Generator, region: str) -> FloatArray:
    """A bright disc for a chest, a ring for a brain, with texture."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2 - rng.normal(scale=1.5, size=2)[:, None, None]
    radius = np.hypot(x, y)
    inside = radius < rng.uniform(8, 12)
    shape = inside if region == "chest" else inside & (radius > 5)
    texture = rng.normal(scale=0.25, size=(SIZE, SIZE))
    image = np.where(shape, rng.uniform(0.2, 0.6) + texture, -1.0)
    return np.clip(image, -1, 1).astype(np.float32)


def facts(patient: str, region: str) -> SliceFacts:
    return invented_facts(patient, region=region)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people, four of them held out; of each twelve slices of one region."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "slices"
    with ShardWriter(folder, SIZE) as writer:
        for person in range(12):
            region = ("chest", "brain")[person % 2]
            for _ in range(12):
                writer.add(encode(disc(rng, region))[None], [facts(f"p{person}", region)])
        writer.finish({f"p{i}": "test" if i >= 8 else "train" for i in range(12)})
    return folder


class Patches:
    """An encoder to stand beside the descriptor: means of 4×4 patches and their spread."""

    name, sha256, dimension = "patches", "0" * 64, 2 * (SIZE // 4) ** 2

    def encode(self, images: FloatArray) -> FloatArray:
        parts = images.reshape(len(images), SIZE // 4, 4, SIZE // 4, 4)
        return np.concatenate([f(parts, axis=(2, 4)).reshape(len(images), -1) for f in (np.mean, np.std)], axis=1)

    def describe(self) -> dict[str, object]:
        return {"name": self.name, "sha256": self.sha256, "dimension": self.dimension}


def made(images: Images, regions: list[str], name: str = "a model") -> Synthetic:
    return Synthetic(name, images, tuple(Condition("CT", region, "axial") for region in regions), ("m" * 64,))


@pytest.fixture(scope="module")
def judge(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Synthetic], Evaluation]:
    cache = tmp_path_factory.mktemp("cache")

    def judge(synthetic: Synthetic) -> Evaluation:
        with pytest.MonkeyPatch.context() as patch:  # a few copies, so that it is quick
            patch.setattr("medvar_engine.evaluate.copies.TO_SET_IT", 12)
            return evaluate(synthetic, slices, [DescriptorEncoder(), Patches()], cache, copies=True, planted=5)

    return judge


@pytest.fixture(scope="module")
def good(judge: Callable[[Synthetic], Evaluation]) -> tuple[Synthetic, Evaluation]:
    """Images of the same kind as the slices, of nobody."""
    rng = np.random.default_rng(7)
    regions = ["chest", "brain"] * 40
    synthetic = made(ArrayImages(np.stack([disc(rng, region) for region in regions])), regions)
    return synthetic, judge(synthetic)


def test_baselines_are_ranked_correctly(good: tuple[Synthetic, Evaluation]) -> None:
    """Figures that put noise before slices would be printed as if they meant something."""
    for one in good[1].encoders:
        assert ranked_rightly(one), one.encoder["name"]
        distances = {name: row["frechet"].value for name, row in one.rows.items()}
        assert max(distances, key=lambda name: distances[name] or 0) == "noise"
        assert one.rows["noise"]["precision"].value == 0
        assert (one.rows["four real images, repeated"]["recall"].value or 0) < 0.2
        repeated, real = (
            one.rows[name]["coverage"].value or 0 for name in ("four real images, repeated", "real, other people")
        )
        assert repeated < real


def test_good_images_are_distinguished_from_bad_ones(
    good: tuple[Synthetic, Evaluation], slices: Path, judge: Callable[[Synthetic], Evaluation]
) -> None:
    """The page would praise a model that copies, or one that shows noise."""
    training = SliceDataset(slices, "train")
    regions = ["chest", "brain"] * 40
    copies = judge(
        made(ArrayImages(training.batch(range(80))[:, 0]), [str(c.region) for c in list(training.conditions)[:80]])
    )
    noise = judge(made(NoiseImages(ArrayImages(training.batch(range(80))[:, 0])), regions))
    distance = {name: one.encoders[1].rows[JUDGED]["frechet"].value for name, one in
                (("good", good[1]), ("noise", noise))}  # fmt: skip
    assert distance["good"] < 0.2 * distance["noise"]
    assert good[1].memorisation is not None
    assert copies.memorisation is not None
    assert copies.memorisation.flagged.value == 1 > (good[1].memorisation.flagged.value or 0)
    assert copies.encoders[1].rows[JUDGED]["authentic"].value == 0
    assert any(one.grave and "memorises" in one.title for one in findings(copies))
    assert good[1].recognition is not None
    assert copies.recognition is not None
    assert (copies.recognition.synthetic.value or 0) > 0.9
    near = copies.encoders[1].to_held_out
    assert near is not None
    assert near["synthetic"] < 0.2 * (noise.encoders[1].to_held_out or near)["synthetic"]
    assert any(one.grave and "worse than blurred" in one.title for one in findings(noise))
    assert not any("memorises" in one.title for one in findings(good[1]))


def test_training_slices_show_which_texture_can_be_expected(good: tuple[Synthetic, Evaluation]) -> None:
    """A model would be blamed for the few patients that were held out."""
    every = good[1].texture["all images"]
    assert every.against == "held out"
    assert every.training is not None
    assert every.training.gradient == pytest.approx(1, abs=0.1)
    assert every.training.slices == every.slices


def test_the_page_contains_all_results(good: tuple[Synthetic, Evaluation], slices: Path) -> None:
    """Who reads only this page must know what the model can do; and a name must not become markup."""
    synthetic, found = good
    hostile = made(synthetic.images, [c.region for c in synthetic.conditions], "<script>alert(1)</script>")  # type: ignore[misc]
    html = page(found, hostile, SliceDataset(slices, "train"))
    for expected in (
        "Fréchet",
        "CT chest axial",
        "all images, training slices",
        "real, other people",
        "noise",
        "AuthPct",
        "MS-SSIM",
        "<svg",
        "<img",
    ):
        assert expected in html
    assert "Main measures" in html
    assert "brain axial" in html
    assert "<script" not in html
    values = json.loads(json.dumps(to_dict(found), allow_nan=False))
    assert (
        values["encoders"][0]["rows"][JUDGED]["frechet"]["low"]
        <= values["encoders"][0]["rows"][JUDGED]["frechet"]["value"]
    )
    assert to_card(values).startswith("## Evaluation")
    sized = {**values, "parameters": 1000, "seconds_an_image": 0.1}
    both = compare([sized, {**sized, "parameters": 2000}, {**values, "seconds_an_image": None}])
    assert "Fréchet distance against parameters" in both
    frechet = values["encoders"][0]["rows"][JUDGED]["frechet"]
    assert f"{frechet['value']:.4g} ({frechet['low']:.4g} to {frechet['high']:.4g})" in both
    assert f"{frechet['value'] * np.log1p(0.1):.4g}" in both  # Efficiency


def test_labels_with_too_few_images_are_reported(judge: Callable[[Synthetic], Evaluation], slices: Path) -> None:
    """A label of three images would get figures that mean nothing."""
    rng = np.random.default_rng(3)
    found = judge(made(ArrayImages(np.stack([disc(rng, "chest") for _ in range(3)])), ["chest"] * 3))
    row = found.encoders[0].rows[JUDGED]
    assert row["precision"].value is None
    assert "more than 5 images" in row["precision"].missing
    assert found.left_out == ["CT chest axial (3 synthetic, 48 training)"]
    with pytest.raises(MedvarError, match="two encoders"):
        evaluate(made(ArrayImages(np.zeros((1, SIZE, SIZE), np.float32)), ["chest"]), slices, [Patches()], slices)


def test_baselines_match_their_names() -> None:
    """The yardstick itself would be wrong."""
    rng = np.random.default_rng(0)
    source = ArrayImages(rng.uniform(-1, 1, (9, SIZE, SIZE)).astype(np.float32))
    collapsed = CollapsedImages(source).batch(range(9))
    assert len(np.unique(collapsed.reshape(9, -1), axis=0)) == 4
    assert BlurredImages(source).batch([3]).std() < 0.3 * source.batch([3]).std()
    assert np.array_equal(NoiseImages(source).batch([5, 2])[1], NoiseImages(source).batch([2])[0])
    assert len({images.digest for images in baselines(source).values()}) == 4


def test_utility_distinguishes_useful_from_useless_images(slices: Path, good: tuple[Synthetic, Evaluation]) -> None:
    """Images that teach a classifier nothing would be sold as training data; or nobody could read what was found."""
    rng = np.random.default_rng(1)
    regions = ["chest", "brain"] * 30
    useful = made(ArrayImages(np.stack([disc(rng, region) for region in regions])), regions)
    useless = made(ArrayImages(rng.uniform(-1, 1, (60, SIZE, SIZE)).astype(np.float32)), regions)
    found = measure_utility(useful, slices, "region", steps=60, seeds=1)
    assert set(found.accuracy) == {"real", "real and synthetic", "synthetic"}
    assert (found.accuracy["real"].value or 0) > 0.7
    assert (found.accuracy["synthetic"].value or 0) > 0.7
    poor = measure_utility(useless, slices, "region", steps=20, seeds=1)
    assert (poor.accuracy["synthetic"].value or 0) < 0.7
    told = replace(good[1], utility=found)
    html = page(told, good[0], SliceDataset(slices, "train"))
    figure = found.accuracy["synthetic"]
    assert f"<td>synthetic</td><td>{figure.value:.3g}" in html
    values = json.loads(json.dumps(to_dict(told), allow_nan=False))
    assert values["utility"]["accuracy"]["synthetic"]["value"] == figure.value
    assert f"from synthetic images {figure.value:.3f}" in to_card(values)
    with pytest.raises(MedvarError, match="at least two"):
        measure_utility(useful, slices, "plane", steps=1)
