"""A session with a model that makes masks: pictures to a mask, and again to another."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_pairs import MASK_SCALES, make_pairs

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request
from napari_medvar.session.generation_session import GenerationSession, Preview
from napari_medvar.session.opened_bundle import OpenedBundle

REQUEST = Request(Condition("CT"), 3)


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


def test_pictures_to_a_mask(session: GenerationSession) -> None:
    """Several at once, one step of undo; the mask is the painted one."""
    made = [one for one in session.draw_to_mask(REQUEST, painted(), count=2) if isinstance(one, Preview)]
    assert len(session.tree.nodes) == 2
    finest = [one for one in made if one.node.complete and one.newest]
    for one in finest:
        assert one.mask is not None
        assert (one.mask == painted()).mean() > 0.95
    session.undo()
    assert not session.tree.nodes


def test_the_current_picture_to_another_mask(session: GenerationSession) -> None:
    """The coarse image stays, and the new picture is a child of the old."""
    list(session.draw_to_mask(REQUEST, painted()))
    parent = session.node
    *_, last = session.redraw_to_mask(1, REQUEST, painted(9))
    assert isinstance(last, Preview)
    assert parent is not None
    assert last.node.parent == parent.id
    assert last.mask is not None
    assert (last.mask == painted(9)).mean() > 0.95
    assert last.node.trace.edit.keep == MASK_SCALES  # type: ignore[union-attr]


def test_what_cannot_be_drawn(session: GenerationSession) -> None:
    with pytest.raises(MedvarError, match="no image to draw again"):
        list(session.redraw_to_mask(1, REQUEST, painted()))
    with pytest.raises(MedvarError, match="The mask is empty"):
        list(session.draw_to_mask(REQUEST, painted() * 0))
    assert not session.tree.nodes
