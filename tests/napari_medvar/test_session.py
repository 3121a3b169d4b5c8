"""`GenerationSession`: what the widget does, without a widget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import SCHEDULE, FakeModels

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.sampling import Sampling
from medvar_engine.trace import Request, Resample
from napari_medvar.session import GenerationSession, Preview

SCALES = len(SCHEDULE)
REQUEST = Request(Condition("CT", "abdomen", "axial"), seed=5)


@pytest.fixture
def models() -> FakeModels:
    return FakeModels()


@pytest.fixture
def session(models: FakeModels) -> GenerationSession:
    session = GenerationSession(models)
    session.load()
    return session


def pictures(previews: list[Preview]) -> dict[int, np.ndarray]:
    return {preview.k: preview.pixels for preview in previews}


def test_generate_yields_one_preview_a_scale_coarse_to_fine(session: GenerationSession) -> None:
    """A user who watches the picture grow would miss a scale, or see one twice."""
    previews = list(session.generate(REQUEST))
    assert [preview.k for preview in previews] == list(range(SCALES))
    assert all(preview.newest for preview in previews)
    assert session.current is not None
    assert session.current.complete
    assert session.trace is not None
    assert session.trace.request == REQUEST


def test_the_last_preview_is_the_finished_picture(session: GenerationSession) -> None:
    """What is saved would not be what was seen."""
    *_, last = session.generate(REQUEST)
    assert session.model is not None
    assert session.current is not None
    np.testing.assert_array_equal(last.pixels, session.model.generator.image(session.current)[0])


def test_steps_make_the_same_picture_as_generate(session: GenerationSession) -> None:
    """Somebody who steps would get another picture for the same seed than somebody who generates."""
    whole = pictures(list(session.generate(REQUEST)))
    session.undo()
    steps = [list(session.step(REQUEST)) for _ in range(SCALES)]
    assert [[preview.k for preview in step] for step in steps] == [[k] for k in range(SCALES)]
    for k, (preview,) in enumerate(steps):
        np.testing.assert_array_equal(preview.pixels, whole[k])
    assert len(session.tree.nodes) == 1


def test_generate_finishes_what_was_stepped(session: GenerationSession, models: FakeModels) -> None:
    """Finish would throw the first scales away and make them again."""
    list(session.step(REQUEST))
    list(session.step(REQUEST))
    assert session.continues(REQUEST)
    assert [preview.k for preview in session.generate(REQUEST)] == list(range(2, SCALES))
    assert models.backend.steps == list(range(SCALES))
    assert not session.continues(REQUEST)


def test_a_changed_setting_begins_a_new_picture(session: GenerationSession) -> None:
    """A changed seed or condition would silently be ignored for the rest of the picture."""
    list(session.step(REQUEST))
    other = Request(REQUEST.condition, seed=6)
    (preview,) = session.step(other)
    assert preview.k == 0
    assert [node.generation.requests[0] for node in session.tree.nodes] == [REQUEST, other]


def test_stop_keeps_the_scales_that_are_there(session: GenerationSession) -> None:
    """Stop would lose the work done, or go on to the end."""
    made: list[Preview] = []
    for preview in session.generate(REQUEST, should_stop=lambda: len(made) == 3):
        made.append(preview)
    assert session.current is not None
    assert session.current.depth == 3


def test_stopping_before_the_first_scale_changes_nothing(session: GenerationSession) -> None:
    """Undo would seem broken: it would undo something that never appeared."""
    assert list(session.generate(REQUEST, should_stop=lambda: True)) == []
    assert session.current is None
    assert not session.can_undo


def test_resample_shares_coarse_scales_and_runs_only_finer_ones(session: GenerationSession, models: FakeModels) -> None:
    """The layout that a user wanted to keep would change, or keeping it would cost as much as a new picture."""
    whole = pictures(list(session.generate(REQUEST)))
    models.backend.steps.clear()
    fresh = pictures(list(session.resample(3, Request(REQUEST.condition, seed=99))))
    assert models.backend.steps == [3, 4, 5]
    assert list(fresh) == [3, 4, 5]
    assert session.trace is not None
    assert session.trace.parent is not None
    assert isinstance(session.trace.edit, Resample)
    assert session.trace.edit.from_scale == 3
    shared = pictures(list(session.previews()))
    for k in range(SCALES):
        assert np.array_equal(shared[k], whole[k]) == (k < 3)
    assert session.tree.nodes[1].parent == 0


def test_resample_takes_the_settings_that_are_asked_for(session: GenerationSession) -> None:
    """The settings in the panel would say one thing, and the picture be made with another."""
    list(session.generate(REQUEST))
    request = Request(Condition("MR", "brain", "axial"), 8, Sampling(guidance=3.0))
    list(session.resample(2, request))
    assert session.trace is not None
    assert session.trace.request == request


def test_undo_and_redo_walk_through_the_pictures(session: GenerationSession) -> None:
    """A user who resampled a good picture away could not get it back."""
    list(session.generate(REQUEST))
    first = session.current
    list(session.resample(2, Request(REQUEST.condition, seed=1)))
    second = session.current
    session.undo()
    assert session.current is first
    assert session.can_redo
    session.redo()
    assert session.current is second
    session.undo()
    list(session.step(REQUEST))
    assert not session.can_redo


def test_previews_come_finest_first_and_are_decoded_once(session: GenerationSession, models: FakeModels) -> None:
    """Going back would be slow: a real decoder takes seconds for what has been decoded before."""
    list(session.generate(REQUEST))
    decoded = models.backend.decoded
    assert [preview.k for preview in session.previews()] == list(reversed(range(SCALES)))
    assert [preview.k for preview in session.previews([1, 4])] == [4, 1]
    assert models.backend.decoded == decoded


def test_loading_forgets_the_pictures_of_the_model_before(session: GenerationSession) -> None:
    """A picture of one model would be continued by another."""
    list(session.generate(REQUEST))
    session.load("fake")
    assert session.current is None
    assert not session.can_undo
    assert session.tree.nodes == ()


def test_a_bundle_that_cannot_be_opened_leaves_the_model_in_use(session: GenerationSession) -> None:
    """One wrong click in the folder picker would lose the model and every picture."""
    list(session.generate(REQUEST))
    model = session.model
    with pytest.raises(MedvarError):
        session.load(Path("nowhere"))
    assert session.model is model
    assert session.current is not None


def test_without_a_model_the_message_says_what_to_do() -> None:
    """A script would meet an AttributeError that says nothing."""
    session = GenerationSession(FakeModels())
    with pytest.raises(MedvarError, match="choose a bundle"):
        list(session.generate(REQUEST))
    session.load()
    with pytest.raises(MedvarError, match="generate one first"):
        list(session.resample(0, REQUEST))
