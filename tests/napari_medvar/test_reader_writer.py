"""What napari reads and writes by way of the plugin, without a viewer."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import FakeModels

from medvar_engine.bundle.read import find_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Request, Trace
from medvar_engine.write.provenance import read_trace
from napari_medvar import reader, writer
from napari_medvar.layers.layer_data import LayerData, layer_data
from napari_medvar.reader import get_reader, read, session_of
from napari_medvar.session import opened_bundle
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.writer import write_layers

ABDOMEN = Request(Condition("CT", "abdomen", "axial"), seed=5)
BRAIN = Request(Condition("MR", "brain", "axial"), seed=6)


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> FakeModels:
    """The fake model is what is found for every image."""
    models = FakeModels()
    for module in (reader, writer):
        monkeypatch.setattr(module, "open_bundle_of", lambda *_: models(None))
    return models


@pytest.fixture
def session() -> GenerationSession:
    """An image, two resampled from it, and a brain, which is looked at."""
    session = new_session()
    list(session.generate(ABDOMEN))
    list(session.resample(2, Request(ABDOMEN.condition, seed=7)))
    session.select(0)
    list(session.resample(2, Request(ABDOMEN.condition, seed=8)))
    list(session.generate(BRAIN))
    session.rename(1, "the good one")
    return session


def new_session() -> GenerationSession:
    session = GenerationSession(FakeModels())
    session.load()
    return session


@pytest.fixture
def saved(session: GenerationSession, tmp_path: Path) -> Path:
    return session.save(tmp_path / "work.medvar")


def scales_of(session: GenerationSession, node: int) -> list[LayerData]:
    """An image's scales as layers, as the widget names them."""
    assert session.opened is not None
    bundle = session.opened.bundle
    previews = list(session.previews(node=node))[::-1]
    return [layer_data(p, bundle, f"scale {p.k} · {bundle.schedule[p.k]}×{bundle.schedule[p.k]}") for p in previews]


def finest(session: GenerationSession, node: int) -> np.ndarray:
    return next(session.previews(node=node)).pixels


# -- reading ------------------------------------------------------------------------------------------------------


def test_only_session_files_are_taken() -> None:
    """napari would ask whom to open every PNG with, and hand us files that we cannot read."""
    assert get_reader("a/work.MEDVAR") is not None
    assert get_reader(["a.medvar", "b.medvar"]) is not None
    assert get_reader("image.png") is None
    assert get_reader(["a.medvar", "b.nii.gz"]) is None


def test_images_come_as_layers_in_units_and_millimetres(session: GenerationSession, saved: Path) -> None:
    """A session dropped on napari would show grey boxes of the wrong size, or too many of them."""
    layers = read(str(saved))
    names = [attributes["name"] for _, attributes, _ in layers]
    assert names == ["the good one", "CT abdomen axial · seed 8", "MR brain axial · seed 6"]
    assert [attributes["visible"] for _, attributes, _ in layers] == [False, False, True]
    abdomen, attributes, kind = layers[0]
    assert kind == "image"
    np.testing.assert_allclose(abdomen, -160 + (np.clip(finest(session, 1), -1, 1) + 1) * 200, rtol=1e-4, atol=0.1)
    assert attributes["contrast_limits"] == [-160, 240]
    assert tuple(attributes["scale"]) == (0.8, 0.8)
    assert attributes["units"] == ("mm", "mm")
    _, brain, _ = layers[2]
    assert brain["contrast_limits"] == [0, 1]
    assert tuple(brain["scale"]) == (1.0, 1.0)


def test_layers_say_what_they_are(session: GenerationSession, saved: Path) -> None:
    """A synthetic image would be taken for a scan, and the widget could not open the session that it is of."""
    (_, attributes, _), *_ = read(str(saved))
    about = attributes["metadata"]["medvar"]
    assert about["synthetic"] is True
    assert "no patient" in about["statement"]
    assert Trace.from_json(about["trace"]).pyramid == session.tree.node(1).trace.pyramid
    layer: Any = SimpleNamespace(metadata=attributes["metadata"])
    assert session_of(layer) == saved
    other: Any = SimpleNamespace(metadata={})
    assert session_of(other) is None


def test_napari_shows_the_error_message(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message would be buried under a traceback and the advice to install another plugin."""
    from napari.utils import notifications

    shown: list[str] = []
    monkeypatch.setattr(notifications, "show_error", shown.append)
    bad = tmp_path / "bad.medvar"
    bad.write_bytes(saved.read_bytes()[:100])
    in_napari = get_reader(str(bad))
    assert in_napari is not None
    assert in_napari(str(bad)) == [(None,)]
    assert len(shown) == 1
    assert "is incomplete" in shown[0]
    with pytest.raises(MedvarError, match="is incomplete"):
        read(str(bad))
    assert len(in_napari(str(saved))) == 3


def test_a_long_session_does_not_flood_the_viewer(
    session: GenerationSession, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred images would hold napari up for a minute."""
    monkeypatch.setattr(reader, "MOST_LAYERS", 2)
    with pytest.warns(UserWarning, match="3 images; the newest 2"):
        layers = read(str(saved))
    assert [attributes["name"] for _, attributes, _ in layers][-1] == "MR brain axial · seed 6"
    assert len(layers) == 2


def test_a_real_bundle_is_found_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of a model of one's own would have to be opened with its bundle found by hand, or look different."""
    folder = tmp_path / "mine"
    shutil.copytree(find_bundle(), folder)
    monkeypatch.setattr(opened_bundle, "shipped_bundles", dict)
    session = GenerationSession()
    session.load(folder)
    list(session.generate(Request(seed=3), count=2))
    list(session.resample(2, Request(seed=4)))
    path = session.save(tmp_path / "work.medvar")
    again = GenerationSession()
    list(again.open(path))
    assert again.opened is not None
    assert again.opened.bundle.path == folder
    for node in session.tree.nodes:
        for one, other in zip(session.previews(node=node.id), again.previews(node=node.id), strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
    shutil.rmtree(folder)
    with pytest.raises(MedvarError, match=r"not found.*mine"):
        opened_bundle.open_bundle_of(session.tree.nodes[0].trace.bundle_id, [str(folder)], "cpu")


# -- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "a.nii", "a.dcm", "A.PNG"])
def test_one_image_is_written_with_its_trace(session: GenerationSession, tmp_path: Path, name: str) -> None:
    """An image saved from napari's own dialog would lose what it is and how it was made."""
    written = write_layers(str(tmp_path / name), scales_of(session, 1)[-1:])
    assert written[0] == str(tmp_path / name)
    assert all(Path(path).is_file() for path in written)
    assert read_trace(tmp_path / name).to_json() == session.tree.node(1).trace.to_json()


def test_what_is_written_does_not_depend_on_how_it_is_shown(session: GenerationSession, tmp_path: Path) -> None:
    """A layer lying over a scan, as (1, H, W) in other units, would be written as it lies, or not at all."""
    import nibabel

    _, attributes, kind = scales_of(session, 1)[-1]
    shown = (np.zeros((1, 4, 4)), attributes, kind)
    path, *_ = write_layers(str(tmp_path / "a.nii"), [shown])
    values = np.clip(finest(session, 1), -1, 1) * 200 + 40
    np.testing.assert_allclose(nibabel.load(path).get_fdata()[..., 0].T, values, atol=0.51)


def test_a_coarser_scale_is_written_as_the_unfinished_image_that_it_is(
    session: GenerationSession, tmp_path: Path
) -> None:
    """The blurred image of scale 1 would be labelled as the finished one."""
    write_layers(str(tmp_path / "a.png"), [scales_of(session, 1)[1]])
    trace = read_trace(tmp_path / "a.png")
    assert trace.pyramid == session.tree.node(1).trace.pyramid.prefix(2)
    assert len(trace.entropy) == 2


def test_several_images_get_names_of_their_own(session: GenerationSession, tmp_path: Path) -> None:
    """They would overwrite each other, or what was there."""
    layers = scales_of(session, 1)[4:]
    written = write_layers(str(tmp_path / "run.png"), layers)
    assert [Path(path).name for path in written] == ["run-scale_4_6_6.png", "run-scale_5_8_8.png"]
    with pytest.raises(MedvarError, match="exists already"):
        write_layers(str(tmp_path / "run.png"), layers)
    with pytest.raises(MedvarError, match="different names"):
        write_layers(str(tmp_path / "other.png"), [layers[0], layers[0]])
    assert len(list(tmp_path.iterdir())) == 2


def test_layers_become_a_session_with_each_image_once(session: GenerationSession, tmp_path: Path) -> None:
    """All scales of one image, selected together, would become as many images."""
    layers = [*scales_of(session, 1), *scales_of(session, 3)]
    (written,) = write_layers(str(tmp_path / "a.medvar"), layers)
    again = new_session()
    list(again.open(Path(written)))
    assert [node.trace.to_json() for node in again.tree.nodes] == [
        session.tree.node(node).trace.to_json() for node in (1, 3)
    ]


@pytest.mark.parametrize("name", ["a.png", "a.medvar"])
def test_other_layers_are_refused_in_plain_words(session: GenerationSession, tmp_path: Path, name: str) -> None:
    """A real scan would be written as a synthetic one; or, saved beside ours, be left out without a word."""
    foreign: LayerData = (np.zeros((4, 4)), {"name": "camera", "metadata": {}}, "image")
    with pytest.raises(MedvarError, match=r"“camera” was not made by MedVAR"):
        write_layers(str(tmp_path / name), [*scales_of(session, 1), foreign])
    blank: LayerData = (np.zeros((4, 4)), {"name": "scale 3", "metadata": {"medvar": {"trace": None}}}, "image")
    with pytest.raises(MedvarError, match="no image yet"):
        write_layers(str(tmp_path / name), [blank])
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_refused(session: GenerationSession, tmp_path: Path) -> None:
    """A typing error in the file's name would end in a traceback."""
    with pytest.raises(MedvarError, match="must end in"):
        write_layers(str(tmp_path / "a.gif"), scales_of(session, 1)[-1:])


def test_a_written_image_can_be_continued(session: GenerationSession, tmp_path: Path) -> None:
    """A colleague who gets a PNG could look at it, but not resample it."""
    path = tmp_path / "a.png"
    write_layers(str(path), scales_of(session, 1)[-1:])
    again = new_session()
    list(again.generate(BRAIN))
    _, *previews = again.open(path)
    np.testing.assert_array_equal(previews[0].pixels, finest(session, 1))  # type: ignore[union-attr]
    assert [node.name for node in again.tree.nodes] == ["", "a.png"]
    list(again.resample(2, ABDOMEN))
    assert again.tree.nodes[2].parent == 1


def test_files_are_valid_json_inside(saved: Path) -> None:
    """Other programs could not read the format that is documented."""
    values = json.loads(gzip.decompress(saved.read_bytes()))
    assert set(values) == {
        *("medvar_session", "synthetic", "reconstructions", "statement", "software", "model", "bundle", "folder"),
        *("nodes", "current", "panels", "traces"),
    }
