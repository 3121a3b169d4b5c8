"""`medvar features`: rows for scikit-learn that do not depend on what is beside them, and never half a table."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.generate.features import (
    averaged,
    feature_names,
    likelihood_features,
    likelihood_names,
    multiscale_features,
    probe_columns,
)
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (5, 16, 16)).astype(np.float32)


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_features_of_an_array(
    medvar: Callable[..., object], tiny_bundle: Path, tmp_path: Path, images: np.ndarray
) -> None:
    """Columns without names, or a table that another batch size would change."""
    np.save(tmp_path / "images.npy", images)
    run = medvar("features", tmp_path / "images.npy", "--out", tmp_path / "f.npy", "--bundle", tiny_bundle)
    assert run.code == 0, run.err
    made, names = np.load(tmp_path / "f.npy"), table(tmp_path / "f.columns.csv")
    assert made.shape == (5, len(names) - 1)
    assert names[1][1] == "attention.mean.0"
    assert [names[-17][1], names[-1][1]] == ["scale3.latent.3.3.3", "scale3.spread.3"]
    assert not (tmp_path / "f.rows.csv").exists()
    again = medvar("features", tmp_path / "images.npy", "--out", tmp_path / "f.npy", "--bundle", tiny_bundle)
    assert (again.code, "exists already" in again.err) == (1, True)


def test_features_of_prepared_slices(
    medvar: Callable[..., object], tiny_bundle: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """A row would be taken for another patient's."""
    folder = prepared(tmp_path / "slices", ["ct1", "mr1", "ct2", "mr2"], size=16)
    whose = ("--bundle", tiny_bundle, "--out", tmp_path / "f.npy")
    run = medvar("features", folder, *whose)
    assert run.code == 0, run.err
    rows = table(tmp_path / "f.rows.csv")
    assert rows[0] == ["patient", "modality", "region", "plane", "dataset"]
    assert len(rows) - 1 == len(np.load(tmp_path / "f.npy")) == 12
    assert {row[0][:2].upper() for row in rows[1:] if row[1] == "CT"} == {"CT"}
    assert medvar("features", folder, *whose, "--split", "test", "--overwrite").code == 0
    assert 0 < len(np.load(tmp_path / "f.npy")) < 12
    np.save(tmp_path / "images.npy", np.zeros((2, 16, 16), np.float32))
    assert medvar("features", tmp_path / "images.npy", *whose, "--overwrite").code == 0
    assert not (tmp_path / "f.rows.csv").exists()  # they would seem to describe the new rows


def test_a_table_is_written_part_by_part(
    medvar: Callable[..., object],
    tiny_bundle: Path,
    tiny_onnx: OnnxBackend,
    tmp_path: Path,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of more images than go through the networks at once, some rows would be lost or torn."""
    monkeypatch.setattr("medvar_engine.cli.features_command.BATCH", 2)
    np.save(tmp_path / "images.npy", images)
    medvar("features", tmp_path / "images.npy", "--out", tmp_path / "f.npy", "--bundle", tiny_bundle)
    made = np.load(tmp_path / "f.npy")
    np.testing.assert_allclose(made, multiscale_features(Generator(tiny_onnx), images), atol=1e-6)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_columns_match_their_names(tiny_onnx: OnnxBackend, images: np.ndarray) -> None:
    """Whoever picks a scale by its name would get another one."""
    generator = Generator(tiny_onnx)
    made = multiscale_features(generator, images)
    names = feature_names(tiny_onnx.info, made.shape[1])
    latents = generator.restore(generator.encode(images, [Request()] * 5).traces).latents
    np.testing.assert_allclose(made[:, names.index("scale2.latent.1.3.0")], latents[2][:, 1, 3, 0], atol=1e-6)
    np.testing.assert_allclose(made[:, names.index("scale1.spread.2")], latents[1][:, 2].std((1, 2)), atol=1e-6)
    chosen = probe_columns(tiny_onnx.info, names)
    assert {names[i].split(".")[0] for i in chosen if ".latent." in names[i]} == {"scale3"}
    assert len(chosen) == len(names) - 3 * 4 * 16
    alone = multiscale_features(generator, images[3:4])
    np.testing.assert_allclose(alone[0], made[3], atol=1e-6)


def test_the_true_condition_explains_an_image_best(tiny_onnx: OnnxBackend, images: np.ndarray) -> None:
    """The likelihood of one condition would stand under another's name, or change with the images beside it."""
    generator, conditions = Generator(tiny_onnx), [Condition(region="brain"), Condition(region="abdomen")]
    made = likelihood_features(generator, images[:2], conditions)
    names = likelihood_names(tiny_onnx.info, conditions)
    assert made.shape == (2, len(names))
    bits = [
        generator.likelihood(generator.encode(images[:2], [Request(c)] * 2))[2].sum((1, 2))
        for c in (Condition(), conditions[1])
    ]
    np.testing.assert_allclose(made[:, names.index("likelihood.abdomen.scale2")], bits[0] - bits[1], atol=1e-3)
    np.testing.assert_array_equal(likelihood_features(generator, images[1:2], conditions)[0], made[1])


def test_likelihood_features_for_every_slice_type(
    medvar: Callable[..., object], tiny_bundle: Path, tmp_path: Path, images: np.ndarray
) -> None:
    """Who asks for it would get a table whose names do not fit its columns, or one of nothing."""
    np.save(tmp_path / "images.npy", images)
    whose = ("--bundle", tiny_bundle, "--out", tmp_path / "f.npy", "--likelihood")
    run = medvar("features", tmp_path / "images.npy", *whose)
    assert run.code == 0, run.err
    names, (first, last) = table(tmp_path / "f.columns.csv"), read_bundle(tiny_bundle).slice_types
    assert np.load(tmp_path / "f.npy").shape == (5, len(names) - 1)
    assert [names[-8][1], names[-1][1]] == [
        f"likelihood.{first.condition}.scale0",
        f"likelihood.{last.condition}.scale3",
    ]


def test_averages_over_sides_that_are_not_divisible() -> None:
    """A latent of 13 tokens a side would have no features."""
    latent = np.arange(26, dtype=np.float32).reshape(1, 1, 2, 13)
    made = averaged(latent, 4)
    assert made.shape == (1, 1, 2, 4)
    np.testing.assert_allclose(made[0, 0, 0], [1, 4, 7, 10.5])


@pytest.mark.parametrize(
    ("content", "out", "message"),
    [
        (b"no array", "f.npy", "neither"),
        (None, "f.npy", "neither"),
        (np.zeros((0, 16, 16), np.float32), "f.npy", "no image"),
        (np.zeros((2, 9, 9), np.float32), "f.npy", "16"),
        (np.full((2, 16, 16), np.nan, np.float32), "f.npy", "finite"),
        (np.zeros((2, 16, 16), np.float32), "f.txt", r"\.npy"),
        (np.array(["a"]), "f.npy", "neither"),
    ],
)
def test_errors_say_what_is_wrong(
    medvar: Callable[..., object], tiny_bundle: Path, tmp_path: Path, content: object, out: str, message: str
) -> None:
    """A traceback, or half a table."""
    given = tmp_path / "images.npy"
    if isinstance(content, bytes):
        given.write_bytes(content)
    elif content is not None:
        np.save(given, content)
    run = medvar("features", given, "--out", tmp_path / out, "--bundle", tiny_bundle)
    assert run.code == 1
    assert "Traceback" not in run.err
    assert message.replace("\\", "") in run.err
    assert not [path for path in tmp_path.iterdir() if path != given]
