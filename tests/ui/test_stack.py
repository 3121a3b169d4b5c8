"""Stacks of slices, from the button to the volume in the viewer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeModels, Gate
from pytestqt.qtbot import QtBot

from medvar_engine.conditions import Condition
from medvar_engine.write.provenance import read_trace
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


@pytest.fixture
def asked(quick: MedvarWidget, tmp_path: Path) -> MedvarWidget:
    """A stack of five slices, 2 mm apart, to be written into a folder."""
    # MR, because CT of the fake model has as few values as a label map, and would not be opened as a scan.
    quick.condition.show_condition(Condition("MR", "brain", "axial"))
    quick.sampling.show_seed(7)
    quick.save.panel.choose_folder(tmp_path / "out")
    panel = quick.save.panel.stack
    panel.count_box.setValue(5)
    panel.spacing_box.setValue(2)
    return quick


@pytest.mark.parametrize("form", ["nifti", "dicom"])
def test_a_stack_is_written_and_opened(asked: MedvarWidget, settle: Settle, tmp_path: Path, form: str) -> None:
    """Neighbouring slices could only be made in a terminal."""
    panel = asked.save.panel.stack
    panel.format_combo.setCurrentIndex(panel.format_combo.findData(form))
    panel.generate_button.click()
    settle(asked)
    assert not asked.message.isVisible(), asked.message.text.text()
    layer = asked.viewer.layers.selection.active
    assert layer.data.shape == (5, 64, 64)
    np.testing.assert_allclose(layer.scale, (2, 1, 1))
    assert asked.viewer.dims.order[0] == 0  # the slider goes through the slices
    (written,) = (path for path in (tmp_path / "out").iterdir() if not path.name.endswith(".json"))
    assert asked.save.panel.report_label.text() == f"Saved {written}"
    assert asked.session.tree.nodes == ()
    if form == "dicom":
        traces = [read_trace(path) for path in sorted(written.iterdir())]
        assert [trace.request.seed for trace in traces] == [7] * 5
        assert [trace.request.stack.slice for trace in traces if trace.request.stack] == [0, 1, 2, 3, 4]


def test_a_stack_that_is_stopped_leaves_nothing(
    asked: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot, tmp_path: Path
) -> None:
    """A series with a missing half would be taken for a whole one."""
    gate = models.backend.before_step = Gate(at=3)
    asked.save.panel.stack.generate_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    asked.scales.stop_button.click()
    gate.open()
    settle(asked)
    assert not (tmp_path / "out").exists()
    assert len(asked.viewer.layers) == 0


def test_no_stack_is_overwritten(asked: MedvarWidget, settle: Settle, tmp_path: Path) -> None:
    for _ in range(2):
        asked.save.panel.stack.generate_button.click()
        settle(asked)
    assert "exists already" in asked.message.text.text()
    assert asked.save.panel.report_label.text() == ""
    assert len(asked.viewer.layers) == 1


def test_a_stack_that_the_model_cannot_draw(asked: MedvarWidget, settle: Settle) -> None:
    """One sentence in the panel, for a slice type without a pixel size; and no position where the model knows none."""
    asked.condition.show_condition(Condition("CT", "chest", "coronal"))
    asked.save.panel.stack.generate_button.click()
    settle(asked)
    assert "no pixel size" in asked.message.text.text()
    assert not asked.save.panel.stack.last.isVisibleTo(asked.save.panel.stack)
