"""Layers that the user deletes at any time: nothing raises, and those that come back lie where they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import SCHEDULE, FakeModels, Gate
from pytestqt.qtbot import QtBot

from napari_medvar.layers.image_layers import METADATA, layer_name
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]
Delete = Callable[[Any], None]
NAMES = [layer_name(SCHEDULE, k) for k in range(len(SCHEDULE))]


def _ours(viewer: Any) -> list[Any]:
    return [layer for layer in viewer.layers if METADATA in layer.metadata]


def _remove(viewer: Any, layers: list[Any]) -> None:
    for layer in layers:
        viewer.layers.remove(layer)


def _remove_selected(viewer: Any) -> None:
    viewer.layers.selection = set(_ours(viewer))
    viewer.layers.remove_selected()


DELETIONS: dict[str, Delete] = {
    "first": lambda viewer: _remove(viewer, _ours(viewer)[:1]),
    "last": lambda viewer: _remove(viewer, _ours(viewer)[-1:]),
    "every other": lambda viewer: _remove(viewer, _ours(viewer)[::2]),
    "selected": _remove_selected,
    "whole list": lambda viewer: viewer.layers.clear(),
}


def _order(viewer: Any) -> list[str]:
    """The names in the layer list, from below; with ``map`` for a map."""
    return ["map" if "map" in layer.metadata.get(METADATA, {}) else layer.name for layer in viewer.layers]


def _generate_many(widget: MedvarWidget) -> None:
    widget.sampling.count_box.setValue(3)
    widget.scales.generate_button.click()


def _encode(widget: MedvarWidget) -> None:
    widget.real.panel.encode_button.click()


WORK: dict[str, Callable[[MedvarWidget], None]] = {
    "gallery": _generate_many,
    "resample": lambda widget: widget.edit.panel.resample_button.click(),
    "encode": _encode,
    "likelihood": lambda widget: widget.views.show_view("likelihood"),
    "all scales": lambda widget: widget.views.show_view("scales"),
}


@pytest.mark.parametrize("delete", list(DELETIONS))
def test_layers_deleted_at_every_result_come_back_in_their_places(
    made: MedvarWidget, settle: Settle, shows_current: Callable[[MedvarWidget], None], delete: str
) -> None:
    """The mask would vanish below the image, or the panel wait for ever for what was deleted."""
    viewer = made.viewer

    def others() -> list[str]:
        return [name for name in ("scan", "my mask") if name in viewer.layers]

    results = 0

    def hit(result: object) -> None:
        nonlocal results
        results += 1
        DELETIONS[delete](viewer)

    for name, work in WORK.items():
        if "scan" not in viewer.layers:
            viewer.add_image(np.random.default_rng(0).random((64, 64)), name="scan")
            viewer.layers.move(len(viewer.layers) - 1, 0)
        if "my mask" not in viewer.layers:
            viewer.add_labels(np.ones((64, 64), dtype=int), name="my mask")
        results = 0
        made.worker.made.connect(hit)
        work(made)
        settle(made)
        if name == "all scales":  # it computes nothing
            assert not results
            hit(None)
        assert results, name
        made.worker.made.disconnect(hit)
        made.look_at(made.scale)  # as when the slider is moved: what was deleted at the very end comes back
        settle(made)
        kept = others()
        maps = ["map"] * _order(viewer).count("map")
        assert _order(viewer) == [*kept[: kept.count("scan")], *NAMES, *maps, *kept[kept.count("scan") :]], name
        assert made.scale == len(SCHEDULE) - 1
        shows_current(made)
        visible = [layer.name for layer in viewer.layers if layer.visible and layer.name in NAMES]
        assert visible == (NAMES if name == "all scales" else NAMES[-1:]), name
        assert made.scales.generate_button.isEnabled()
        assert not made.scales.stop_button.isEnabled()
        assert not made.message.isVisible() or "was removed" in made.message.text.text()
        made.views.show_view("image")
        settle(made)
    assert len(made.session.tree.nodes) == 6  # 1 and 3, resampled, encoded


def test_all_layers_deleted_during_the_run_are_seen_again(
    viewer: Any, widget: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot
) -> None:
    """The canvas would stay empty, or the widget be stuck, in a real window."""
    viewer.layers.clear()
    widget.scales.generate_button.click()
    settle(widget)
    gate = models.backend.before_step = Gate(at=2)
    _generate_many(widget)
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    viewer.layers.clear()
    gate.open()
    settle(widget)
    assert _order(viewer) == NAMES
    assert [layer.visible for layer in viewer.layers] == [False] * (len(SCHEDULE) - 1) + [True]
    assert viewer.screenshot(flash=False)[..., :3].mean() > 5
    assert widget.gallery.panel.sheet.count() == 4


def test_a_layer_that_comes_back_has_the_contrast_of_the_others(made: MedvarWidget, settle: Settle) -> None:
    """The image would change its brightness with the scale, and the scales be no longer linked."""
    layers = made.viewer.layers
    layers[NAMES[3]].contrast_limits = (-50, 150)
    layers[NAMES[3]].gamma = 0.8
    layers.remove(layers[NAMES[0]])  # the first that was made
    layers[NAMES[2]].contrast_limits = (-60, 140)
    made.scales.slider.setValue(0)
    settle(made)
    assert {tuple(layer.contrast_limits) for layer in layers} == {(-60, 140)}
    assert {layer.gamma for layer in layers} == {0.8}
    layers[NAMES[0]].contrast_limits = (-70, 130)
    assert {tuple(layer.contrast_limits) for layer in layers} == {(-70, 130)}


@pytest.mark.parametrize("side", ["one side", "whole list"])
def test_deleting_a_side_ends_the_comparison(made: MedvarWidget, settle: Settle, qtbot: QtBot, side: str) -> None:
    """The panel would be in a comparison of which nothing is left, and the slider do nothing."""
    made.scales.generate_button.click()
    settle(made)
    made.history.panel.compare_button.setChecked(True)
    made.history.compare(0, 1)
    settle(made)
    assert made.image_view.comparison.shown
    if side == "whole list":
        made.viewer.layers.clear()
    else:
        made.viewer.layers.remove(made.viewer.layers[-1])
    qtbot.waitUntil(lambda: not made.image_view.comparison.shown, timeout=WAIT)
    assert not made.history.panel.compare_button.isChecked()
    assert not made.viewer.canvas.grid.enabled
    made.scales.slider.setValue(2)
    settle(made)
    assert [layer.name for layer in made.viewer.layers] == NAMES
    assert made.viewer.layers[NAMES[2]].visible


def test_a_mask_and_a_map_stay_above_the_image_that_moves_above_a_scan(made: MedvarWidget, settle: Settle) -> None:
    """What was painted would vanish below the next image."""
    made.views.show_view("tokens")
    settle(made)
    made.viewer.add_labels(np.zeros((64, 64), dtype=int), name="my mask")
    made.viewer.add_image(np.zeros((64, 64)), name="scan")
    made.views.show_view("image")
    made.scales.generate_button.click()
    settle(made)
    assert _order(made.viewer) == ["scan", *NAMES, "map", "my mask"]
