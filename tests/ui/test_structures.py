"""Structures are painted, and an image is drawn to them: in the real widget, with a tiny model that makes masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_pairs import make_pairs

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle
from medvar_engine.generate.generator import Generator
from napari_medvar.layers.structure_layers import NAME
from napari_medvar.session.opened_bundle import OpenedBundle
from napari_medvar.widget import MedvarWidget

Settle = Callable[[MedvarWidget], None]


@pytest.fixture
def paired(quick: MedvarWidget, settle: Settle, pair_bundle: Bundle) -> MedvarWidget:
    """The widget with a model that makes masks."""
    opened = OpenedBundle(pair_bundle, Generator(OnnxBackend(pair_bundle, device="cpu")))
    quick.session.open_bundle = lambda name, asked: opened
    quick.load(pair_bundle.path)
    settle(quick)
    return quick


def test_paint_and_draw(paired: MedvarWidget, settle: Settle, shows_current: Callable[[MedvarWidget], None]) -> None:
    """Paint labels, draw; the mask of the image is shown, with the names and colours of its structures."""
    viewer = paired.viewer
    paired.structures.paint()
    layer = viewer.layers[NAME]
    assert list(layer.features["name"]) == ["none", "square", "bar"]
    assert layer.mode == "paint"
    values = make_pairs(1, 4)[0, 1].astype(np.uint8)
    layer.data = values
    paired.structures.draw()
    settle(paired)
    assert paired.session.node is not None
    assert paired.session.node.complete
    assert (np.asarray(viewer.layers[NAME].data) == values).mean() > 0.95
    assert [one.name for one in viewer.layers].count(NAME) == 1

    moved = np.roll(np.asarray(viewer.layers[NAME].data), 3, axis=1)
    viewer.layers[NAME].data = moved
    viewer.layers.selection.active = viewer.layers[NAME]
    paired.scales.slider.setValue(1)
    paired.structures.redraw()
    settle(paired)
    assert len(paired.session.tree.nodes) == 2
    assert (np.asarray(viewer.layers[NAME].data) == moved).mean() > 0.9
    shows_current(paired)


def test_a_mask_without_a_pixel_size(paired: MedvarWidget, settle: Settle) -> None:
    """It would shrink into a corner of the image, whose pixels are 1.5 mm wide."""
    values = make_pairs(1, 4)[0, 1].astype(np.uint8)
    paired.viewer.layers.selection.active = paired.viewer.add_labels(values.copy(), name="opened")
    paired.structures.draw()
    settle(paired)
    drawn = paired.viewer.layers[NAME]
    assert drawn.scale.tolist() == [1.5, 1.5]
    assert (np.asarray(drawn.data) == values).mean() > 0.95


def test_impossible_masks_are_reported(paired: MedvarWidget) -> None:
    """An empty layer, another layer, a model without masks: one sentence each, and nothing is made."""
    viewer = paired.viewer
    paired.structures.paint()
    paired.structures.draw()
    assert "Nothing of the image is painted" in paired.message.text.text()
    viewer.layers.selection.active = viewer.add_image(np.zeros((16, 16)), name="scan")
    paired.structures.draw()
    assert "Select a Labels layer" in paired.message.text.text()
    assert not paired.session.tree.nodes


def test_a_model_without_masks(quick: MedvarWidget) -> None:
    """Nobody paints what no model will draw to."""
    quick.structures.paint()
    assert "images without masks" in quick.message.text.text()
    assert NAME not in quick.viewer.layers
