"""`GenerationSession`: what the widget does, without a widget."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import SCHEDULE, SIZE, VOCABULARY, FakeModels

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.trace import Encoded, Request, Resample
from medvar_engine.request import MAX_SEED, Sampling
from napari_medvar.session import previews, undo_history
from napari_medvar.session.generation_session import GenerationSession, Preview

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


def images(previews: list[Preview]) -> dict[int, np.ndarray]:
    return {preview.k: preview.pixels for preview in previews}


def test_generate_yields_one_preview_a_scale_coarse_to_fine(session: GenerationSession) -> None:
    """A user who watches the image grow would miss a scale, or see one twice."""
    previews = list(session.generate(REQUEST))
    assert [preview.k for preview in previews] == list(range(SCALES))
    assert all(preview.newest for preview in previews)
    assert session.node is not None
    assert session.node.complete
    assert session.trace is not None
    assert session.trace.request == REQUEST


def test_the_last_preview_is_the_finished_image(session: GenerationSession) -> None:
    """What is saved would not be what was seen."""
    *_, last = session.generate(REQUEST)
    assert session.opened is not None
    assert session.node is not None
    np.testing.assert_array_equal(
        last.pixels, session.opened.generator.image(session.opened.generator.restore([session.node.trace]))[0]
    )


def _generations() -> int:
    """The number of generations in memory."""
    gc.collect()
    return sum(isinstance(one, Generation) for one in gc.get_objects())


def test_long_sessions_keep_tokens_only(session: GenerationSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day's work would fill the memory with latents; but an old image must be shown and gone on with as before."""
    monkeypatch.setattr(previews, "KEPT_PREVIEWS", 1)
    monkeypatch.setattr(previews, "KEPT_LATENTS", 3)
    before = _generations()  # of windows that other tests opened
    shown = [list(session.generate(Request(REQUEST.condition, seed=seed)))[-1] for seed in range(12)]
    assert _generations() - before <= 4
    for one in shown:
        session.select(one.node.id)
        np.testing.assert_array_equal(next(session.previews()).pixels, one.pixels)
    session.select(shown[0].node.id)
    again = list(session.resample(2, Request(REQUEST.condition, seed=0)))[-1]
    np.testing.assert_array_equal(again.pixels, shown[0].pixels)


def test_steps_make_the_same_image_as_generate(session: GenerationSession) -> None:
    """Somebody who steps would get another image for the same seed than somebody who generates."""
    whole = images(list(session.generate(REQUEST)))
    session.undo()
    steps = [list(session.step(REQUEST)) for _ in range(SCALES)]
    assert [[preview.k for preview in step] for step in steps] == [[k] for k in range(SCALES)]
    for k, (preview,) in enumerate(steps):
        np.testing.assert_array_equal(preview.pixels, whole[k])
    assert len(session.tree.nodes) == 1


def test_generate_finishes_a_stepped_image(session: GenerationSession, models: FakeModels) -> None:
    """Finish would throw the first scales away and make them again."""
    list(session.step(REQUEST))
    list(session.step(REQUEST))
    assert session.continues(REQUEST)
    assert [preview.k for preview in session.generate(REQUEST)] == list(range(2, SCALES))
    assert models.backend.steps == list(range(SCALES))
    assert not session.continues(REQUEST)


def test_a_changed_setting_begins_a_new_image(session: GenerationSession) -> None:
    """A changed seed or condition would silently be ignored for the rest of the image."""
    list(session.step(REQUEST))
    other = Request(REQUEST.condition, seed=6)
    (preview,) = session.step(other)
    assert preview.k == 0
    assert [node.trace.request for node in session.tree.nodes] == [REQUEST, other]


def test_stop_keeps_the_finished_scales(session: GenerationSession) -> None:
    """Stop would lose the work done, or go on to the end."""
    made: list[Preview] = []
    for preview in session.generate(REQUEST, should_stop=lambda: len(made) == 3):
        made.append(preview)
    assert session.node is not None
    assert session.node.depth == 3


def test_stopping_before_the_first_scale_changes_nothing(session: GenerationSession) -> None:
    """Undo would seem broken: it would undo something that never appeared."""
    assert list(session.generate(REQUEST, should_stop=lambda: True)) == []
    assert session.node is None
    assert not session.can_undo


def test_resample_shares_coarse_scales_and_runs_only_finer_ones(session: GenerationSession, models: FakeModels) -> None:
    """The layout that a user wanted to keep would change, or keeping it would cost as much as a new image."""
    whole = images(list(session.generate(REQUEST)))
    models.backend.steps.clear()
    fresh = images(list(session.resample(3, Request(REQUEST.condition, seed=99))))
    assert models.backend.steps == [3, 4, 5]
    assert list(fresh) == [3, 4, 5]
    assert session.trace is not None
    assert session.trace.parent is not None
    assert isinstance(session.trace.edit, Resample)
    assert session.trace.edit.from_scale == 3
    shared = images(list(session.previews()))
    for k in range(SCALES):
        assert np.array_equal(shared[k], whole[k]) == (k < 3)
    assert session.tree.nodes[1].parent == 0


def test_resample_takes_the_settings_that_are_requested(session: GenerationSession) -> None:
    """The settings in the panel would say one thing, and the image be made with another."""
    list(session.generate(REQUEST))
    request = Request(Condition("MR", "brain", "axial"), 8, Sampling(guidance=3.0))
    list(session.resample(2, request))
    assert session.trace is not None
    assert session.trace.request == request


def test_undo_and_redo_walk_through_the_images(session: GenerationSession) -> None:
    """A user who resampled a good image away could not get it back."""
    list(session.generate(REQUEST))
    first = session.node
    list(session.resample(2, Request(REQUEST.condition, seed=1)))
    second = session.node
    session.undo()
    assert session.node is first
    assert session.can_redo
    session.redo()
    assert session.node is second
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


def test_loading_forgets_the_images_of_the_model_before(session: GenerationSession) -> None:
    """An image of one model would be continued by another."""
    list(session.generate(REQUEST))
    session.load("fake")
    assert session.node is None
    assert not session.can_undo
    assert session.tree.nodes == ()


def test_a_bundle_that_cannot_be_opened_leaves_the_model_in_use(session: GenerationSession) -> None:
    """One wrong click in the folder picker would lose the model and every image."""
    list(session.generate(REQUEST))
    opened = session.opened
    with pytest.raises(MedvarError):
        session.load(Path("nowhere"))
    assert session.opened is opened
    assert session.node is not None


def test_without_a_model_the_message_says_what_to_do() -> None:
    """A script would meet an AttributeError that says nothing."""
    session = GenerationSession(FakeModels())
    with pytest.raises(MedvarError, match="choose one first"):
        list(session.generate(REQUEST))
    session.load()
    with pytest.raises(MedvarError, match="generate one first"):
        list(session.resample(0, REQUEST))


# -- edits, candidates and real images ----------------------------------------------------------------------------


def tokens(session: GenerationSession, node: int) -> list[np.ndarray]:
    return [m[0] for m in session.tree.node(node).trace.pyramid.maps]


def test_several_images_at_once_are_those_of_their_seeds(session: GenerationSession) -> None:
    """Whoever notes the seed of the third of eight images could not make it again alone."""
    made = list(session.generate(REQUEST, count=3))
    assert [node.trace.request.seed for node in session.tree.nodes] == [5, 6, 7]
    assert session.tree.current == 0
    assert [preview.k for preview in made if preview.node.id == 0] == list(range(SCALES))
    assert {preview.node.id: preview.k for preview in made} == {0: SCALES - 1, 1: SCALES - 1, 2: SCALES - 1}
    together = session.tree.node(2).trace.pyramid
    session.undo()
    assert not session.tree.nodes
    list(session.generate(Request(REQUEST.condition, seed=7)))
    assert session.trace is not None
    assert session.trace.pyramid == together


def test_seeds_of_several_images_stay_seeds(session: GenerationSession) -> None:
    """The largest seed there is would end in an error when more than one image is asked for."""
    list(session.generate(Request(REQUEST.condition, seed=MAX_SEED), count=2))
    assert [node.trace.request.seed for node in session.tree.nodes] == [MAX_SEED, 0]


def test_no_images_are_refused(session: GenerationSession) -> None:
    """A script that computes a count of 0 would meet a ValueError of numpy."""
    with pytest.raises(MedvarError, match="1 or more"):
        list(session.generate(REQUEST, count=0))


def test_without_previews_only_finished_images_are_decoded(models: FakeModels) -> None:
    """The setting would do nothing: with a slow decoder each scale would still wait for its image."""
    session = GenerationSession(models, show_previews=False)
    session.load()
    made = list(session.generate(REQUEST))
    assert [type(each).__name__ for each in made] == ["Progress"] * (SCALES - 1) + ["Preview"]
    assert models.backend.decoded == 1


def test_resample_inside_a_mask_keeps_the_outside_to_the_pixel(session: GenerationSession) -> None:
    """A user who paints over a lesion would find the rest of the image changed."""
    *_, before = session.generate(REQUEST)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:20, :20] = True
    *_, after = session.resample(2, Request(REQUEST.condition, seed=9), mask=mask, exact_outside=True, soft_edge=3.0)
    assert not np.array_equal(after.pixels, before.pixels)
    np.testing.assert_array_equal(after.pixels[~mask], before.pixels[~mask])
    again = GenerationSession(FakeModels())
    again.load()
    list(again.generate(REQUEST))
    *_, plain = again.resample(2, Request(REQUEST.condition, seed=9), mask=mask)
    assert not np.array_equal(plain.pixels, after.pixels)  # previews of the two must not be taken for each other


def test_locked_scales_stay(session: GenerationSession) -> None:
    """A locked scale would be drawn anew."""
    list(session.generate(REQUEST))
    list(session.resample(1, Request(REQUEST.condition, seed=9), keep=[3]))
    before, after = tokens(session, 0), tokens(session, 1)
    assert np.array_equal(after[3], before[3])
    assert not np.array_equal(after[4], before[4])


def test_graft_takes_coarse_scales_of_one_and_fine_ones_of_the_other(session: GenerationSession) -> None:
    """The layout of one image under the texture of another would be neither."""
    list(session.generate(REQUEST, count=2))
    made = list(session.graft(3, coarse=0, fine=1))
    new = tokens(session, 2)
    for k in range(SCALES):
        np.testing.assert_array_equal(new[k], tokens(session, 0 if k < 3 else 1)[k])
    assert session.tree.node(2).parent == 1
    assert [preview.k for preview in made] == list(range(SCALES))  # every scale is another one
    session.undo()
    assert [node.id for node in session.tree.nodes] == [0, 1]


def test_replaced_tokens_stay_and_finer_scales_are_drawn_again(session: GenerationSession) -> None:
    """A token chosen by hand would be overwritten; or undo would stop half-way, at an image without fine scales."""
    list(session.generate(REQUEST))
    chosen = (tokens(session, 0)[2] + 1) % VOCABULARY
    where = np.eye(3, dtype=bool)
    list(session.replace_tokens(2, where, chosen))
    new = tokens(session, 1)
    np.testing.assert_array_equal(new[2][where], chosen[where])
    np.testing.assert_array_equal(new[2][~where], tokens(session, 0)[2][~where])
    assert session.node is not None
    assert session.node.complete
    session.undo()
    assert len(session.tree.nodes) == 1


def test_candidates_are_drawn_shown_and_only_the_picked_one_kept(
    session: GenerationSession, models: FakeModels
) -> None:
    """Choosing among eight would cost eight whole images, or leave seven in the history."""
    list(session.generate(REQUEST))
    models.backend.steps.clear()
    request = Request(REQUEST.condition, seed=30)
    (drawn,) = session.candidates(2, request, 4)
    assert models.backend.steps == [2]
    assert drawn.pixels.shape == (4, SIZE, SIZE)
    assert drawn.k == 2
    assert len(session.tree.nodes) == 1
    *_, picked = session.pick(drawn, [3])
    assert session.tree.nodes[1].parent == 0
    assert picked.trace.request.seed == 33
    session.select(0)
    *_, alone = session.resample(2, Request(REQUEST.condition, seed=33))
    np.testing.assert_array_equal(alone.pixels, picked.pixels)


def test_all_candidates_can_be_finished(session: GenerationSession) -> None:
    """Finishing all would finish one, or need a step of undo for each."""
    *_, drawn = session.candidates(0, REQUEST, 3, until=2)
    assert drawn.k == 2
    list(session.pick(drawn, range(3)))
    assert [node.complete for node in session.tree.nodes] == [True] * 3
    session.undo()
    assert not session.tree.nodes


def test_a_candidate_of_a_deleted_image_is_refused(session: GenerationSession) -> None:
    """The new image would hang on nothing, and the session file could not be opened again."""
    list(session.generate(REQUEST))
    (drawn,) = session.candidates(2, REQUEST, 2)
    session.delete(0)
    with pytest.raises(MedvarError, match="deleted"):
        list(session.pick(drawn, [0]))


def test_a_real_image_becomes_a_node_to_vary(session: GenerationSession) -> None:
    """Starting from a scan would not show its reconstruction, or could not be varied from a scale on."""
    image = np.linspace(-1, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    made = list(session.start_from_image(image, REQUEST.condition, name="scan"))
    assert [preview.k for preview in made] == list(range(SCALES))
    assert session.node is not None
    assert session.node.name == "scan"
    assert isinstance(session.node.trace.edit, Encoded)
    assert session.entropy_maps() == ()
    list(session.resample(3, REQUEST))
    assert session.tree.nodes[1].parent == 0
    np.testing.assert_array_equal(tokens(session, 1)[2], tokens(session, 0)[2])


def test_maps_of_the_current_image(session: GenerationSession) -> None:
    """The overlays would have no or the wrong shape."""
    with pytest.raises(MedvarError, match="generate one first"):
        session.likelihood_maps()
    list(session.generate(REQUEST))
    shapes = [(side, side) for side in SCHEDULE]
    assert [scale.shape for scale in session.entropy_maps()] == shapes
    assert [scale.shape for scale in session.likelihood_maps()] == shapes
    assert session.anomaly_map().shape == (SIZE, SIZE)
    assert session.token_previews(2, 0, 1, [4, 5, 6]).shape == (3, SIZE, SIZE)
    assert session.nearby_tokens(0, 4, 3)[0] == 4


# -- the tree -----------------------------------------------------------------------------------------------------


def test_an_older_image_can_be_branched_from(session: GenerationSession) -> None:
    """Only the newest image could be gone on with."""
    list(session.generate(REQUEST))
    list(session.resample(2, Request(REQUEST.condition, seed=1)))
    session.select(0)
    list(session.resample(4, Request(REQUEST.condition, seed=2)))
    assert [node.parent for node in session.tree.nodes] == [None, 0, 0]
    assert [node.id for node in session.tree.tips] == [1, 2]
    session.undo()
    assert session.tree.current == 0


def test_deleting_keeps_what_was_made_from_it(session: GenerationSession) -> None:
    """Deleting one image would lose others, or leave them without what they came from."""
    list(session.generate(REQUEST))
    list(session.resample(2, Request(REQUEST.condition, seed=1)))
    list(session.resample(2, Request(REQUEST.condition, seed=2)))
    session.delete(1)
    assert [(node.id, node.parent) for node in session.tree.nodes] == [(0, None), (2, 0)]
    assert session.trace is not None
    assert session.trace.parent is not None
    assert session.trace.parent.request.seed == 1  # how it was made is not forgotten
    session.delete(2)
    assert session.tree.current == 0
    session.delete(0)
    assert session.node is None
    for _ in range(3):
        session.undo()
    assert [node.id for node in session.tree.nodes] == [0, 1, 2]
    assert session.tree.current == 2


def test_ids_are_not_given_twice(session: GenerationSession) -> None:
    """A list in the widget would take a new image for the one deleted."""
    list(session.generate(REQUEST, count=2))
    session.delete(1)
    list(session.generate(Request(REQUEST.condition, seed=50)))
    assert [node.id for node in session.tree.nodes] == [0, 2]


def test_names_can_be_given_and_taken_back(session: GenerationSession) -> None:
    """A name would be lost with the next scale, or not be undone."""
    list(session.step(REQUEST))
    session.rename(0, "good one")
    list(session.generate(REQUEST))
    assert session.tree.node(0).name == "good one"
    session.undo()
    session.undo()
    assert session.tree.node(0).name == ""


def test_compare_shows_the_finest_scale_that_both_have(session: GenerationSession) -> None:
    """An unfinished image could not be compared, or two scales would be taken for the same."""
    list(session.generate(REQUEST))
    list(session.step(Request(REQUEST.condition, seed=6)))
    one, other = session.compare(0, 1)
    assert (one.k, other.k) == (0, 0)
    assert (one.node.id, other.node.id) == (0, 1)
    with pytest.raises(MedvarError, match="no image 9"):
        session.compare(0, 9)


def test_undo_forgets_the_oldest_steps_only(session: GenerationSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long sitting would fill the memory, or lose the newest steps."""
    monkeypatch.setattr(undo_history, "UNDO_STEPS", 3)
    list(session.step(REQUEST))
    for name in "abcde":
        session.rename(0, name)
    for _ in range(9):
        session.undo()
    assert session.tree.node(0).name == "b"
    for _ in range(9):
        session.redo()
    assert session.tree.node(0).name == "e"


def test_without_onnxruntime_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script would end in an ImportError of a package that is no dependency."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MedvarError, match=r"pip install 'napari-medvar\[cpu\]'"):
        GenerationSession().load()
