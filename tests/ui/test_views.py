"""What of the image is shown: maps, differences, all scales; and playing the scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import SCHEDULE, SIZE, FakeModels
from pytestqt.qtbot import QtBot

from medvar_engine.errors import MedvarError
from napari_medvar.layers.image_layers import layer_name
from napari_medvar.layers.map_layers import span_around_zero
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]
SCALES = len(SCHEDULE)


def shown(widget: MedvarWidget) -> list[Any]:
    return [layer for layer in widget.viewer.layers if layer.visible]


def edges(layer: Any) -> np.ndarray:
    """The world's coordinates of the outer corners of the first and the last pixel."""
    last = np.array(layer.data.shape) - 1
    return np.array([layer.data_to_world([-0.5] * layer.ndim), layer.data_to_world(last + 0.5)])


@pytest.mark.parametrize("view", ["tokens", "entropy", "likelihood", "difference", "anomaly"])
def test_a_map_covers_the_image_exactly(made: MedvarWidget, settle: Settle, view: Any) -> None:
    """What the map says of one place would be seen at another."""
    made.views.show_view(view)
    settle(made)
    made.scales.slider.setValue(3)
    settle(made)
    image, over = shown(made)
    assert image.name == layer_name(SCHEDULE, 3)
    assert over.metadata["medvar"]["map"] == view
    assert over.data.shape == ((SIZE, SIZE) if view in ("difference", "anomaly") else (SCHEDULE[3], SCHEDULE[3]))
    np.testing.assert_allclose(edges(over), edges(image), atol=1e-6)
    made.views.show_view("image")
    assert [layer.name for layer in shown(made)] == [layer_name(SCHEDULE, 3)]


def test_maps_say_in_the_canvas_what_they_are_and_what_colours_mean(made: MedvarWidget, settle: Settle) -> None:
    """Nobody could read a value off a map, or tell one map from another in a screenshot."""
    made.scales.slider.setValue(3)
    for view, caption in (("entropy", "undecided, bits · scale 3"), ("likelihood", "unlikely, bits · scale 3")):
        made.views.show_view(view)
        settle(made)
        over = shown(made)[1]
        assert over.name == caption
        assert over.name_overlay.visible
        assert over.colorbar.visible
        assert over.contrast_limits[0] == 0
    made.views.show_view("tokens")
    settle(made)
    assert shown(made)[1].name_overlay.visible
    made.views.show_view("image")
    settle(made)
    assert not any(layer.name_overlay.visible for layer in shown(made))


def test_the_maps_equal_those_of_the_model(made: MedvarWidget, settle: Settle) -> None:
    """A pretty image of something else would be studied."""
    node = made.session.node
    assert node is not None
    made.views.show_view("tokens")
    settle(made)
    np.testing.assert_array_equal(shown(made)[1].data, node.trace.pyramid.maps[-1][0])
    made.views.show_view("entropy")
    settle(made)
    np.testing.assert_allclose(shown(made)[1].data, node.trace.entropy[-1], atol=1e-6)
    made.views.show_view("likelihood")
    settle(made)
    np.testing.assert_allclose(shown(made)[1].data, made.session.likelihood_maps()[-1], atol=1e-5)
    made.views.show_view("difference")
    settle(made)
    fine, coarse = (next(iter(made.session.previews([k]))).pixels for k in (SCALES - 1, SCALES - 2))
    np.testing.assert_allclose(shown(made)[1].data, (fine - coarse) * 200, atol=1e-3)
    assert shown(made)[1].name == f"added by scale {SCALES - 1}, HU"


def test_the_coarsest_scale_has_no_difference(made: MedvarWidget, settle: Settle) -> None:
    """A map of the scale before would stay and be taken for this one's."""
    made.views.show_view("difference")
    made.scales.slider.setValue(0)
    settle(made)
    assert [layer.name for layer in shown(made)] == [layer_name(SCHEDULE, 0)]
    assert "no scale before" in made.views.note.text()


def test_a_new_image_keeps_the_view(made: MedvarWidget, settle: Settle) -> None:
    """Whoever watches the entropies would have to choose them again for every image, or see old ones."""
    made.views.show_view("likelihood")
    settle(made)
    before = np.array(shown(made)[1].data)
    made.scales.generate_button.click()
    settle(made)
    assert [layer.name for layer in shown(made)] == [
        layer_name(SCHEDULE, SCALES - 1),
        f"unlikely, bits · scale {SCALES - 1}",
    ]
    np.testing.assert_allclose(shown(made)[1].data, made.session.likelihood_maps()[-1], atol=1e-5)
    assert not np.allclose(before, shown(made)[1].data)


def test_all_scales_side_by_side_and_back(made: MedvarWidget, settle: Settle) -> None:
    """napari's grid would be left in a state that nobody asked for."""
    made.views.show_view("scales")
    settle(made)
    assert [layer.name for layer in shown(made)] == [layer_name(SCHEDULE, k) for k in range(SCALES)]
    assert all(layer.name_overlay.visible for layer in shown(made))  # which of them is scale 4?
    assert made.viewer.canvas.grid.enabled
    made.views.show_view("image")
    settle(made)
    assert len(shown(made)) == 1
    assert not made.viewer.canvas.grid.enabled


def test_a_failed_map_is_reported_once(made: MedvarWidget, settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The widget would ask the model for the same again and again, and never be idle."""

    def fail() -> Any:
        raise MedvarError("Not enough memory.")

    monkeypatch.setattr(made.session, "likelihood_maps", fail)
    made.views.show_view("likelihood")
    settle(made)
    assert made.views.view == "image"


def test_deleted_map_layers_come_back(made: MedvarWidget, settle: Settle) -> None:
    """Deleting a layer in napari's list would break the view for good."""
    made.views.show_view("tokens")
    settle(made)
    made.viewer.layers.remove(shown(made)[1].name)
    made.scales.slider.setValue(2)
    settle(made)
    assert [layer.name for layer in shown(made)] == [layer_name(SCHEDULE, 2), "tokens · scale 2"]


def test_playing_repeats_and_pauses(made: MedvarWidget, qtbot: QtBot) -> None:
    """Nobody could watch the image grow a second time."""
    made.scales.play_button.click()
    qtbot.waitUntil(lambda: made.scales.scale == 0, timeout=WAIT)
    qtbot.waitUntil(lambda: made.scales.scale == 1, timeout=WAIT)
    made.scales.play_button.click()
    at = made.scales.scale
    qtbot.wait(600)
    assert made.scales.scale == at


def test_without_previews_the_layers_follow_at_the_end(quick: MedvarWidget, settle: Settle, models: FakeModels) -> None:
    """With previews off in the settings, the slider would show the scales of the image before."""
    quick.session.show_previews = False
    quick.scales.generate_button.click()
    settle(quick)
    for k in range(SCALES):
        preview = next(iter(quick.session.previews([k])))
        layer = quick.viewer.layers[layer_name(SCHEDULE, k)]
        np.testing.assert_allclose(layer.data, -160 + (preview.pixels + 1) / 2 * 400, atol=1e-3)


@pytest.mark.parametrize(("most", "limit"), [(437, 500), (801, 1000), (0.13, 0.15), (300, 300), (0, 1e-6)])
def test_the_colours_of_a_difference_end_at_round_numbers(most: float, limit: float) -> None:
    """napari's colour bar would show a 0 and no other number."""
    assert span_around_zero(np.array([[-most, most / 2]])) == pytest.approx((-limit, limit))
