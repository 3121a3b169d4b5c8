"""What a bundle says of itself comes from the slices it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invented_facts import invented_facts

from medvar_engine.bundle.read import SliceType
from medvar_engine.conditions import Condition
from medvar_engine.data.shards import ShardWriter
from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import MetricLog, read_log
from medvar_engine.value_range import encode
from medvar_export.describe import describe

LOG = (
    "step,name,value\n10,held_out_psnr,20\n10,loss,0.5\n20,held_out_psnr,31.25\n20,psnr_CT_chest,30\n"
    "20,ssim_CT_chest,0.9\n20,psnr_MR_brain,28\n20,feature_distance_CT_chest,0.25\n20,code_entropy_scale_1,7.5\n"
    "20,loss_CT_chest,5.25\n20,loss_scale_1,0.5\n20,held_out_loss_scale_1,6.5\n"
)


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """CT of two patients and MR of one for training, and one patient held out."""
    people = {"a": ("CT", 0.7), "b": ("CT", 0.9), "c": ("MR", None), "d": ("CT", 5.0)}
    with ShardWriter(tmp_path / "slices", 8) as writer:
        for patient, (modality, spacing) in people.items():
            values = (-1000.0, 400.0, "HU") if modality == "CT" else (3.0, 812.0, "arbitrary")
            writer.add(
                encode(np.zeros((8, 8), np.float32))[None],
                [
                    invented_facts(
                        patient,
                        modality=modality,
                        spacing_mm=spacing,
                        low=values[0],
                        high=values[1],
                        unit=values[2],
                        series=patient,
                        source="Some Data",
                        licence="CC BY 4.0",
                    )
                ],
            )
        writer.finish({name: "test" if name == "d" else "train" for name in people}, remarks=[])
    return tmp_path / "slices"


def test_a_bundle_knows_its_training_slices(slices: Path, tmp_path: Path) -> None:
    """Images would be written with another scanner's pixel size, MR with made-up units, and people left unnamed."""
    (tmp_path / "log.csv").write_text(LOG)
    about = describe("lungs", "MIT", slices, logs=[tmp_path / "log.csv"], notes="Mind the gap.")
    assert about.slice_types == (
        SliceType(Condition("CT", "chest", "axial"), 2, 2, 0.8, -1000.0, 400.0, "HU"),
        SliceType(Condition("MR", "chest", "axial"), 1, 1, None, 0.0, 1.0, "arbitrary"),
    )
    assert about.training_data.startswith("3 slices of 3 patients (a, b, c). Held out and never trained on: d.")
    assert about.attributions == ("Some Data (CC BY 4.0): a, b, c, d",)
    for line in (
        "# lungs",
        "| psnr | 31.250 |",
        "| region | psnr | ssim | feature_distance | loss |",
        "| CT chest | 30.000 | 0.900 | 0.250 | 5.250 |",
        "| MR brain | 28.000 | – | – | – |",
        "| 1 | 7.500 | 6.500 |",
        "Mind the gap.",
        "memorises",
    ):
        assert line in about.card
    assert "| 0.5" not in about.card  # which is the loss of training


def test_logs_of_earlier_versions_say_the_same(slices: Path, tmp_path: Path) -> None:
    """A model trained last year could not be exported, or its card would lose what was measured."""
    (tmp_path / "old.csv").write_text(LOG)
    curves = read_log(tmp_path / "old.csv")
    log = MetricLog(tmp_path / "new.csv", 0)
    for step in (10, 20):
        log.write(step, {metric: dict(points)[step] for metric, points in curves.items() if step in dict(points)})
    assert read_log(tmp_path / "new.csv") == curves
    old, new = (describe("lungs", "MIT", slices, logs=[tmp_path / name]) for name in ("old.csv", "new.csv"))
    assert old.card == new.card


def test_missing_measurements_are_stated(slices: Path) -> None:
    """A card without figures would look as if it had some."""
    assert "Not measured." in describe("lungs", "MIT", slices).card


@pytest.mark.parametrize(
    "text",
    [
        "step,name\n1,held_out_psnr\n",
        "step,split,metric,scale,region,value\n1,held_out,psnr,,,much\n",
        "step,split,metric,scale,region,value\n1,held_out,psnr,one,,3\n",
        None,
    ],
)
def test_a_damaged_log(slices: Path, tmp_path: Path, text: str | None) -> None:
    """The last step after days of training would be a traceback."""
    if text is not None:
        (tmp_path / "log.csv").write_text(text)
    with pytest.raises(MedvarError, match=r"log\.csv"):
        describe("lungs", "MIT", slices, logs=[tmp_path / "log.csv"])


def test_folders_without_slices_are_refused(tmp_path: Path) -> None:
    """A wrong --data would be a traceback."""
    with pytest.raises(MedvarError, match="medvar prepare"):
        describe("lungs", "MIT", tmp_path)
