"""Changing an image: masks, locks, conditions, grafts, tokens by hand, candidates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fakes import SCHEDULE, SIZE, FakeModels, Gate
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from medvar_engine.conditions import Condition
from medvar_engine.generate.trace import Graft, Replace, Resample
from napari_medvar.layers.image_layers import layer_name
from napari_medvar.session.differing import closeups, differing_window, place_of_token
from napari_medvar.session.trace_tree import Node
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]
SCALES = len(SCHEDULE)


def node(widget: MedvarWidget) -> Node:
    assert widget.session.node is not None
    return widget.session.node


def pixels(widget: MedvarWidget) -> np.ndarray:
    return np.array(widget.viewer.layers[layer_name(SCHEDULE, SCALES - 1)].data)


def paint(widget: MedvarWidget, rows: slice, columns: slice) -> None:
    widget.edit.panel.paint_button.click()
    layer = widget.viewer.layers["mask"]
    data = np.zeros_like(layer.data)
    data[rows, columns] = 1
    layer.data = data


def test_paint_gives_a_mask_on_the_image_with_the_brush_selected(made: MedvarWidget) -> None:
    """Painting would begin with five clicks in napari, and hit other places than the image's."""
    made.edit.panel.paint_button.click()
    layer = made.viewer.layers["mask"]
    assert layer.data.shape == (SIZE, SIZE)
    np.testing.assert_allclose(layer.scale, [0.8, 0.8])
    assert made.viewer.layers.selection.active is layer
    assert str(layer.mode) == "paint"
    assert made.edit.panel.mask_layer == made.viewer.layers["mask"]


def test_pixels_outside_the_mask_stay_exactly_on_request(made: MedvarWidget, settle: Settle) -> None:
    """A lesion painted into one corner would change the opposite one."""
    before, parent = pixels(made), node(made).id
    made.scales.slider.setValue(1)
    paint(made, slice(0, 20), slice(0, 20))
    made.edit.panel.outside_combo.setCurrentIndex(1)
    made.edit.panel.edge_box.setValue(0)
    made.edit.panel.resample_button.click()
    settle(made)
    after = pixels(made)
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    inside[:20, :20] = True
    np.testing.assert_array_equal(after[~inside], before[~inside])
    assert not np.array_equal(after[inside], before[inside])
    assert node(made).parent == parent
    edit = node(made).trace.edit
    assert isinstance(edit, Resample)
    assert edit.mask is not None
    np.testing.assert_array_equal(edit.mask, inside)


def test_tokens_outside_the_mask_stay_otherwise(made: MedvarWidget, settle: Settle) -> None:
    """“May change a little” would change everything."""
    before = node(made).trace.pyramid.maps[-1][0]
    made.scales.slider.setValue(2)
    paint(made, slice(0, 16), slice(0, 16))
    made.edit.panel.resample_button.click()
    settle(made)
    after = node(made).trace.pyramid.maps[-1][0]
    np.testing.assert_array_equal(after[2:, 2:], before[2:, 2:])


def test_a_shape_drawn_in_millimetres_is_a_mask(made: MedvarWidget, settle: Settle) -> None:
    """Shapes drawn on a layer of another pixel size would mask another place."""
    made.scales.slider.setValue(1)
    made.viewer.add_shapes([np.array([[8.0, 8.0], [8.0, 24.0], [24.0, 24.0], [24.0, 8.0]])], name="drawn")
    made.edit.panel.choose_mask(made.viewer.layers["drawn"])
    made.edit.panel.resample_button.click()
    settle(made)
    edit = node(made).trace.edit
    assert isinstance(edit, Resample)
    assert edit.mask is not None
    rows, columns = np.nonzero(edit.mask)
    assert abs(rows.min() - 10) <= 1  # 8 mm at 0.8 mm a pixel
    assert abs(rows.max() - 30) <= 1
    assert abs(columns.min() - 10) <= 1


def test_an_empty_mask_is_reported_and_changes_nothing(made: MedvarWidget) -> None:
    """A traceback, or an image changed everywhere."""
    made.edit.panel.paint_button.click()
    made.edit.panel.resample_button.click()
    assert "Nothing of the image is painted" in made.message.text.text()
    assert made.message.isVisible()
    assert not made.worker.running
    assert len(made.session.tree.nodes) == 1


def test_a_deleted_mask_is_no_longer_offered(made: MedvarWidget, settle: Settle) -> None:
    """Resample would fail on a layer that is gone."""
    made.edit.panel.paint_button.click()
    made.viewer.layers.remove("mask")
    assert made.edit.panel.mask_layer is None
    assert "whole image" in made.message.text.text()  # or the next resample would undo more than was meant
    made.edit.panel.resample_button.click()
    settle(made)
    assert not made.message.isVisible()
    assert len(made.session.tree.nodes) == 2


def test_maps_are_not_offered_as_masks(made: MedvarWidget, settle: Settle) -> None:
    """The token map, a Labels layer itself, would be offered as a mask."""
    made.views.show_view("tokens")
    settle(made)
    assert made.edit.panel.mask_combo.count() == 1


def test_locked_scales_stay(made: MedvarWidget, settle: Settle) -> None:
    """A lock would be a decoration."""
    before = node(made).trace.pyramid.maps
    made.scales.slider.setValue(1)
    made.edit.panel.lock_buttons[3].click()
    made.edit.panel.resample_button.click()
    settle(made)
    after = node(made).trace.pyramid.maps
    same = [bool(np.array_equal(a, b)) for a, b in zip(before, after, strict=True)]
    assert same[0]
    assert same[3]
    assert not all(same)


def test_another_condition_from_a_scale_on(
    made: MedvarWidget, settle: Settle, shows_current: Callable[[MedvarWidget], None]
) -> None:
    """The layout would be lost, or the seed, and with it what the two images have in common.

    And coarse scales, which stay, would show HU within the limits of MR: black and white.
    """
    before = node(made)
    made.condition.show_condition(Condition("MR", "brain", "axial"))
    made.scales.slider.setValue(2)
    made.edit.panel.recondition_button.click()
    settle(made)
    after = node(made)
    assert after.trace.request.condition == Condition("MR", "brain", "axial")
    assert after.trace.request.seed == before.trace.request.seed
    for k in range(2):
        np.testing.assert_array_equal(after.trace.pyramid.maps[k], before.trace.pyramid.maps[k])
    shows_current(made)
    made.undo()
    settle(made)
    shows_current(made)


def test_graft_takes_the_coarse_scales_of_another_image(made: MedvarWidget, settle: Settle) -> None:
    """Layout and detail would come from the wrong images."""
    coarse = node(made)
    made.scales.generate_button.click()
    settle(made)
    fine = node(made)
    made.scales.slider.setValue(3)
    assert made.edit.panel.graft_combo.currentData() == coarse.id
    made.edit.panel.graft_button.click()
    settle(made)
    grafted = node(made).trace
    assert isinstance(grafted.edit, Graft)
    for k in range(SCALES):
        source = coarse if k < 3 else fine
        np.testing.assert_array_equal(grafted.pyramid.maps[k], source.trace.pyramid.maps[k])


class Click:
    """What napari hands to a mouse callback."""

    def __init__(self, position: tuple[float, ...]) -> None:
        self.position = position


def test_a_click_picks_a_token_that_can_be_replaced(made: MedvarWidget, settle: Settle) -> None:
    """Nobody could change one place by hand, or another place would change."""
    made.scales.slider.setValue(3)
    made.edit.panel.pick_button.click()
    for callback in made.viewer.mouse_drag_callbacks:
        callback(made.viewer, Click((0.8 * 40, 0.8 * 20)))  # mm: pixel 40, 20 of 64, so token 2, 1 of 4×4
    settle(made)
    before = node(made).trace.pyramid.maps
    tokens = made.edit.tokens.tokens
    assert tokens[0] == before[3][0, 2, 1]
    assert len(set(tokens)) == len(tokens) == made.edit.tokens.thumbnails.count() > 2
    made.edit.tokens.use_button.click()  # the one that is there already
    settle(made)
    assert "is already at this place" in made.message.text.text()
    assert len(made.session.tree.nodes) == 1
    made.edit.tokens.thumbnails.setCurrentRow(2)
    made.edit.tokens.use_button.click()
    settle(made)
    after = node(made).trace.pyramid.maps
    assert isinstance(node(made).trace.edit, Replace)
    assert after[3][0, 2, 1] == tokens[2]
    assert (after[3] != before[3]).sum() == 1
    made.edit.panel.pick_button.click()
    assert made.edit._clicked not in made.viewer.mouse_drag_callbacks


def test_previews_of_other_tokens_show_where_they_differ(made: MedvarWidget, settle: Settle) -> None:
    """At 72 pixels a side all of them look the same."""
    made.edit.panel.from_box.setValue(5)
    made.edit.panel.pick_button.click()
    made.edit.pick(2, 5)
    settle(made)
    choice = made.edit._choice
    assert choice is not None
    near, whole = closeups(choice.previews, place_of_token(2, 5, SCHEDULE[5], SIZE))
    assert len(near) == len(whole) == len(choice.tokens)
    assert {image.shape[2] for image in near} == {3}  # the frame is orange
    side = near[0].shape[0]
    assert SIZE / 4 <= side < SIZE
    rows, columns = differing_window(choice.previews)
    token_rows, token_columns = place_of_token(2, 5, SCHEDULE[5], SIZE)
    assert rows.start <= token_rows.start < token_rows.stop <= rows.stop
    assert columns.start <= token_columns.start < token_columns.stop <= columns.stop
    outside = np.ones((SIZE, SIZE), dtype=bool)
    outside[rows, columns] = False
    assert np.abs(choice.previews - choice.previews[0])[:, outside].max() < 0.05  # nothing that one would see is cut
    panel = made.edit.tokens
    assert panel.thumbnails.item(0).text().startswith("now")
    assert not panel.thumbnails.item(1).icon().isNull()


def test_a_bundle_without_codebook_says_what_to_do(
    made: MedvarWidget, settle: Settle, models: FakeModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older bundle would bring a traceback."""
    monkeypatch.setattr(models.backend, "codebook", None)
    made.edit.panel.pick_button.click()
    made.edit.pick(0, 0)
    settle(made)
    assert "codebook" in made.message.text.text()


def test_a_click_beside_the_image_picks_nothing(made: MedvarWidget) -> None:
    """A click past the edge would be an error, or take the token of the other side."""
    made.edit.panel.pick_button.click()
    for callback in made.viewer.mouse_drag_callbacks:
        callback(made.viewer, Click((-5.0, 1000.0)))
    assert not made.worker.running


def test_candidates_are_drawn_and_one_is_finished(made: MedvarWidget, settle: Settle, qtbot: QtBot) -> None:
    """One would get another image than the one chosen from the sheet."""
    parent = node(made)
    made.scales.slider.setValue(2)
    panel = made.candidates.panel
    panel.count_box.setValue(4)
    panel.until_box.setValue(3)
    made.folds["candidates"].expand()
    panel.draw_button.click()
    settle(made)
    assert panel.sheet.count() == 4
    assert len(made.session.tree.nodes) == 1  # nothing is kept before one is chosen
    held = made.candidates._candidates
    assert held is not None
    panel.sheet.setCurrentRow(1)
    qtbot.keyClick(panel.sheet, Qt.Key.Key_Right)
    assert panel.sheet.currentRow() == 2
    qtbot.keyClick(panel.sheet, Qt.Key.Key_Return)
    settle(made)
    assert node(made).parent == parent.id
    assert node(made).complete
    np.testing.assert_array_equal(node(made).trace.pyramid.maps[3][0], held.generation.pyramid.maps[3][2])
    np.testing.assert_array_equal(node(made).trace.pyramid.maps[1], parent.trace.pyramid.maps[1])


def test_all_candidates_can_be_finished(made: MedvarWidget, settle: Settle) -> None:
    """Good ones would have to be thrown away."""
    made.scales.slider.setValue(2)
    made.candidates.panel.count_box.setValue(3)
    made.candidates.panel.draw_button.click()
    settle(made)
    made.candidates.panel.all_button.click()
    settle(made)
    assert len(made.session.tree.nodes) == 4
    assert all(each.complete for each in made.session.tree.nodes)
    assert made.status.progress.format().startswith("image 3 of 3")


def test_a_finished_candidate_is_not_made_again(made: MedvarWidget, settle: Settle) -> None:
    """The history would fill with the same image."""
    made.scales.slider.setValue(2)
    made.candidates.panel.count_box.setValue(3)
    made.candidates.panel.draw_button.click()
    settle(made)
    made.candidates.panel.sheet.setCurrentRow(1)
    made.candidates.panel.pick_button.click()
    settle(made)
    picked = node(made).id
    made.candidates.panel.all_button.click()
    settle(made)
    requests = [each.trace.request for each in made.session.tree.nodes]
    assert len(requests) == len(set(requests)) == 4
    made.candidates.panel.sheet.setCurrentRow(1)
    made.candidates.panel.pick_button.click()
    settle(made)
    assert node(made).id == picked
    assert len(made.session.tree.nodes) == 4


def test_candidates_can_be_stopped_and_chosen_early(
    made: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot
) -> None:
    """Whoever sees the good one at a coarse scale would have to wait for all to be finished."""
    made.scales.slider.setValue(1)
    gate = models.backend.before_step = Gate(at=3)
    made.candidates.panel.draw_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    made.scales.stop_button.click()
    gate.open()
    settle(made)
    assert made.candidates._candidates is not None
    assert made.candidates._candidates.k <= 3
    made.candidates.panel.pick_button.click()
    settle(made)
    assert node(made).complete


def test_several_images_at_once_go_into_the_history(quick: MedvarWidget, settle: Settle) -> None:
    """Only the first of several would be kept."""
    quick.sampling.count_box.setValue(3)
    quick.sampling.show_seed(5)
    quick.sampling.fresh_box.setChecked(False)
    quick.scales.generate_button.click()
    settle(quick)
    assert [each.trace.request.seed for each in quick.session.tree.nodes] == [5, 6, 7]
    assert quick.history.panel.without_thumbnail() == []
    np.testing.assert_allclose(
        pixels(quick), -160 + (next(iter(quick.session.previews())).pixels + 1) / 2 * 400, atol=1e-3
    )


def test_a_second_press_is_another_try_from_the_same_scale(made: MedvarWidget, settle: Settle) -> None:
    """The slider goes to the finished image, and the second try would change hardly anything."""
    made.scales.slider.setValue(2)
    panel = made.edit.panel
    for press in (panel.resample_button, panel.recondition_button, panel.resample_button):
        press.click()
        settle(made)
        assert made.scales.scale == SCALES - 1
        edit = node(made).trace.edit
        assert isinstance(edit, Resample)
        assert edit.from_scale == 2
        assert panel.resample_button.text() == "&Resample from scale 2"


def test_the_scale_of_edits_stays_where_it_is_put(made: MedvarWidget, settle: Settle, qtbot: QtBot) -> None:
    """Looking through the scales would move it."""
    panel = made.edit.panel
    panel.from_box.setValue(4)
    made.scales.slider.setValue(0)
    assert panel.from_scale == 4
    assert not panel.follow_box.isChecked()
    panel.follow_box.setChecked(True)
    made.scales.slider.setValue(1)
    assert panel.from_scale == 1
    made.scales.play_button.click()
    qtbot.waitUntil(lambda: made.scales.scale == 2, timeout=WAIT)
    made.scales.play_button.click()
    assert panel.from_scale == 1


def test_the_slider_updates_only_what_depends_on_the_scale(
    made: MedvarWidget, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many images in the history the slider would be slow, because all lists would be filled again."""
    made.scales.generate_button.click()
    settle(made)
    filled: list[object] = []
    monkeypatch.setattr(made.history.panel, "show_entries", lambda *entries: filled.append(entries))
    made.scales.slider.setValue(0)
    assert made.edit.panel.resample_button.text() == "&Resample from scale 0"
    assert made.candidates.panel.draw_button.text() == "Draw candidates from scale 0"
    assert not made.edit.panel.graft_button.isEnabled()
    made.scales.slider.setValue(3)
    assert made.candidates.panel.draw_button.text() == "Draw candidates from scale 3"
    assert made.edit.panel.graft_button.isEnabled()
    assert not filled


def test_edits_of_an_unfinished_image_begin_at_a_scale_that_it_has(quick: MedvarWidget, settle: Settle) -> None:
    """Resampling the first scale alone would be refused, or begin where there is nothing."""
    quick.scales.step_button.click()
    settle(quick)
    quick.edit.panel.from_box.setValue(4)
    assert quick.edit.panel.resample_button.text() == "&Resample from scale 0"
    quick.edit.panel.resample_button.click()
    settle(quick)
    assert not quick.message.isVisible()
    assert node(quick).complete


def test_the_mask_has_its_tools_in_the_panel(made: MedvarWidget, settle: Settle) -> None:
    """Painting would send one to napari's layer controls and back; a second Paint would make a second mask."""
    panel = made.edit.panel
    assert not panel.clear_button.isEnabled()
    paint(made, slice(0, 20), slice(0, 20))
    mask = made.viewer.layers["mask"]
    assert panel.brush_box.value() == mask.brush_size
    panel.brush_box.setValue(11)
    assert mask.brush_size == 11
    panel.invert_button.click()
    assert np.asarray(mask.data).sum() == SIZE * SIZE - 400
    panel.clear_button.click()
    assert not np.asarray(mask.data).any()
    mask.undo()
    assert np.asarray(mask.data).any()
    panel.resample_button.click()
    settle(made)
    assert mask.opacity < 0.2  # what has changed is to be seen
    made.viewer.layers.selection.active = made.viewer.layers[0]
    panel.paint_button.click()
    assert [layer.name for layer in made.viewer.layers if layer.name.startswith("mask")] == ["mask"]
    assert made.viewer.layers.selection.active is mask
    assert mask.opacity > 0.4


def test_a_renamed_mask_stays_the_mask(made: MedvarWidget, settle: Settle) -> None:
    """The next edit would change the whole image, though a mask was painted and chosen."""
    made.edit.panel.paint_button.click()
    layer = made.viewer.layers["mask"]
    painted = np.zeros(layer.data.shape, dtype=np.uint8)
    painted[:32, :32] = 1
    layer.data = painted
    layer.name = "the nodule"
    assert made.edit.panel.mask_combo.currentText() == "the nodule"
    assert made.edit.panel.mask_layer == layer
    made.edit.panel.brush_box.setValue(9)
    assert layer.brush_size == 9
    made.edit.panel.resample_button.click()
    settle(made)
    edit = node(made).trace.edit
    assert isinstance(edit, Resample)
    assert edit.mask is not None
    assert not made.message.isVisible()


def test_a_segmentation_of_the_user_is_not_painted_over(made: MedvarWidget) -> None:
    """Clear would wipe out an afternoon of segmenting."""
    made.viewer.add_labels(np.ones((SIZE, SIZE), dtype=int), name="mine")
    made.edit.panel.choose_mask(made.viewer.layers["mine"])
    assert not made.edit.panel.clear_button.isEnabled()
    made.edit.clear_mask()
    assert np.asarray(made.viewer.layers["mine"].data).all()


def test_before_and_after_with_one_button(made: MedvarWidget, settle: Settle) -> None:
    """What an edit changed could not be seen but by Undo, which looks dangerous."""
    panel, first = made.edit.panel, node(made).id
    assert not panel.flip_button.isEnabled()
    panel.resample_button.click()
    settle(made)
    second = node(made).id
    for expected in (first, second, first, second):
        panel.flip_button.click()
        settle(made)
        assert node(made).id == expected
    assert len(made.session.tree.nodes) == 2


def test_mixing_different_regions_gives_a_warning(made: MedvarWidget, settle: Settle) -> None:
    """A head in the layout of an abdomen would come out, and nobody know why."""
    made.sampling.roll()
    made.scales.generate_button.click()
    settle(made)
    assert made.edit.panel.graft_note.isHidden()
    made.condition.show_condition(Condition("MR", "brain", "axial"))
    made.scales.generate_button.click()
    settle(made)
    assert "CT abdomen axial" in made.edit.panel.graft_note.text()
    assert not made.edit.panel.graft_note.isHidden()
    assert not made.edit.panel.graft_combo.itemIcon(0).isNull()  # one chooses by what is seen


def test_the_name_of_the_other_image_is_shown_in_full(made: MedvarWidget, settle: Settle, qtbot: QtBot) -> None:
    """In a narrow dock the list would show “1 · CT chest axial posit”."""
    made.history.rename(node(made).id, "the chest with the large left lung and the small heart")
    made.scales.generate_button.click()
    settle(made)
    made.folds["edit"].expand()
    panel = made.edit.panel
    for width, repeated in ((300, True), (900, False)):
        made.resize(width, 900)
        qtbot.waitUntil(lambda repeated=repeated: panel.graft_name.isVisible() == repeated)
    assert panel.graft_name.text() == panel.graft_combo.currentText()


def test_candidates_go_when_another_image_comes(made: MedvarWidget, settle: Settle) -> None:
    """Going on with one would leave the image that is looked at."""
    panel = made.candidates.panel
    panel.count_box.setValue(2)
    panel.draw_button.click()
    settle(made)
    panel.pick_button.click()
    settle(made)
    assert panel.sheet.count() == 2  # the other one may be wanted, too
    made.sampling.roll()
    made.scales.generate_button.click()
    settle(made)
    assert panel.sheet.count() == 0
