"""A session with a model that makes masks: images to a mask, and again to another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from tiny_pairs import MASK_SCALES, STRUCTURES, make_pairs

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.memorisation.copy_risk import CopyPolicy, CopyRisk
from medvar_engine.memorisation.screen import CopyScreen
from medvar_engine.request import Request
from medvar_engine.write.mask_file import mask_path
from medvar_engine.write.written_mask import read_written_mask
from napari_medvar import writer
from napari_medvar.layers.layer_data import layer_data
from napari_medvar.session.generation_session import GenerationSession, Preview
from napari_medvar.session.opened_bundle import OpenedBundle
from napari_medvar.session.save_images import SaveOptions, SaveProgress, write_image_files, write_set
from napari_medvar.session.session_file import SavedSession, write_session
from napari_medvar.session.trace_tree import TraceTree

REQUEST = Request(Condition("CT"), 3)
ABDOMEN = Request(Condition("CT", "abdomen", "axial"), 3)


@pytest.fixture
def session(pair_bundle: Bundle) -> GenerationSession:
    made = GenerationSession(
        lambda name, bundle_id: OpenedBundle(pair_bundle, Generator(OnnxBackend(pair_bundle, device="cpu")))
    )
    made.load()
    return made


def painted(seed: int = 4) -> np.ndarray:
    return make_pairs(1, seed)[0, 1].astype(np.uint8)


def test_previews_have_masks(session: GenerationSession) -> None:
    *_, last = session.generate(REQUEST)
    assert isinstance(last, Preview)
    assert last.mask is not None
    assert last.mask.shape == last.pixels.shape


def test_images_to_a_mask(session: GenerationSession) -> None:
    """Several at once, one step of undo; the mask is the painted one."""
    made = [one for one in session.draw_to_mask(REQUEST, painted(), count=2) if isinstance(one, Preview)]
    assert len(session.tree.nodes) == 2
    finest = [one for one in made if one.node.complete and one.newest]
    for one in finest:
        assert one.mask is not None
        assert (one.mask == painted()).mean() > 0.95
    session.undo()
    assert not session.tree.nodes


def test_the_current_image_to_another_mask(session: GenerationSession) -> None:
    """The coarse image stays, and the new image is a child of the old."""
    list(session.draw_to_mask(REQUEST, painted()))
    parent = session.node
    *_, last = session.redraw_to_mask(1, REQUEST, painted(9))
    assert isinstance(last, Preview)
    assert parent is not None
    assert last.node.parent == parent.id
    assert last.mask is not None
    assert (last.mask == painted(9)).mean() > 0.95
    assert last.node.trace.edit.keep == MASK_SCALES  # type: ignore[union-attr]


def saved_as_copies(
    session: GenerationSession, folder: Path, policy: CopyPolicy, monkeypatch: pytest.MonkeyPatch
) -> SaveProgress:
    """All images of the session, written as DICOM of the user's own images by a gate that flags every image."""

    class Gate:
        def risk(self, image: object) -> CopyRisk:
            return CopyRisk(0.1, 0.2)

    monkeypatch.setattr(CopyScreen, "of", lambda *_: CopyScreen(policy, Gate()))  # type: ignore[arg-type]
    assert session.opened is not None
    finest, nodes = len(session.opened.bundle.schedule) - 1, session.tree.nodes
    previews = [one for node in nodes for one in session.previews([finest], node=node.id)]
    *_, written = write_image_files(
        session.opened, nodes, previews, folder, SaveOptions("dicom", policy, own_source=True)
    )
    return written


def test_images_to_a_mask_are_synthetic(
    session: GenerationSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of training slices would pass the gate as the user's own, and their files would not say synthetic."""
    list(session.draw_to_mask(ABDOMEN, painted()))
    list(session.redraw_to_mask(1, ABDOMEN, painted(9)))
    assert not any(node.trace.of_real_image for node in session.tree.nodes)
    withheld = saved_as_copies(session, tmp_path / "withheld", "withhold", monkeypatch)
    assert (withheld.done, len(withheld.withheld)) == (0, 2)
    assert saved_as_copies(session, tmp_path / "flagged", "flag", monkeypatch).done == 2
    files = [pydicom.dcmread(file) for file in (tmp_path / "flagged").glob("*.dcm")]
    assert {file.SyntheticData for file in files if "SyntheticData" in file} == {"YES"}


def test_a_real_image_to_another_mask_is_of_a_real_image(
    session: GenerationSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patient's image would be called synthetic as soon as its mask is changed, twice at the latest."""
    opened = session.opened
    assert opened is not None
    pair = make_pairs(1, 4)
    real = opened.generator.encode(pair[:, 0], [ABDOMEN], pair[:, 1].astype(np.uint8)).trace(0)
    saved = SavedSession.of(TraceTree().added([real]), opened.id, opened.bundle.name, opened.bundle.path, {})
    list(session.open(write_session(tmp_path / "real.medvar", saved)))
    for seed in (9, 10):
        list(session.redraw_to_mask(1, ABDOMEN, painted(seed)))
    assert len(session.tree.nodes) == 3
    assert all(node.trace.of_real_image for node in session.tree.nodes)
    assert saved_as_copies(session, tmp_path / "own", "withhold", monkeypatch).done == 3


@pytest.mark.parametrize("form", ["png", "png16", "nifti", "dicom"])
def test_masks_are_saved_beside_images(session: GenerationSession, tmp_path: Path, form: str) -> None:
    """What was made with masks could be taken out of napari without them only; or an old mask would be overwritten."""
    *_, last = session.generate(ABDOMEN)
    assert isinstance(last, Preview)
    assert session.opened is not None
    nodes = session.tree.nodes
    *_, written = write_image_files(session.opened, nodes, [last], tmp_path, SaveOptions(form))
    assert written.path is not None
    mask, structures = read_written_mask(mask_path(written.path, form))
    np.testing.assert_array_equal(mask, last.mask)
    assert [one.name for one in structures] == list(STRUCTURES)
    written.path.unlink()
    with pytest.raises(MedvarError, match="exists already"):
        list(write_image_files(session.opened, nodes, [last], tmp_path, SaveOptions(form)))


def test_sets_are_saved_with_masks(session: GenerationSession, tmp_path: Path) -> None:
    """A set from the panel would lack what a set from the command line has."""
    assert session.opened is not None
    orders = [(ABDOMEN.condition, 2)]
    list(write_set(session.opened, orders, ABDOMEN.sampling, 5, tmp_path, SaveOptions("nifti"), lambda: False))
    assert len(list(tmp_path.glob("*-mask.nii.gz"))) == 2


def test_the_layer_is_saved_with_its_mask(
    session: GenerationSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Save in napari's file menu."""
    *_, last = session.generate(ABDOMEN)
    assert isinstance(last, Preview)
    monkeypatch.setattr(writer, "open_bundle_of", lambda *_: session.opened)
    assert session.opened is not None
    layer = layer_data(last, session.opened.bundle, "one")
    files = writer.write_layers(str(tmp_path / "one.nii.gz"), [layer])
    assert str(tmp_path / "one-mask.nii.gz") in files
    mask, _ = read_written_mask(tmp_path / "one-mask.nii.gz")
    np.testing.assert_array_equal(mask, last.mask)


def test_impossible_masks_are_refused(session: GenerationSession) -> None:
    with pytest.raises(MedvarError, match="no image to draw again"):
        list(session.redraw_to_mask(1, REQUEST, painted()))
    with pytest.raises(MedvarError, match="The mask is empty"):
        list(session.draw_to_mask(REQUEST, painted() * 0))
    assert not session.tree.nodes
