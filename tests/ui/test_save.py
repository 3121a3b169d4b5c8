"""Images, sets and sittings to files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeModels, Gate
from pytestqt.qtbot import QtBot

from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.screen import CopyScreen
from medvar_engine.write.formats import ENDINGS
from medvar_engine.write.provenance import read_about_pixels, read_trace
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


@pytest.fixture
def two(quick: MedvarWidget, settle: Settle, tmp_path: Path) -> MedvarWidget:
    """Two finished images, to be written into a new folder."""
    quick.sampling.count_box.setValue(2)
    quick.scales.generate_button.click()
    settle(quick)
    quick.save.panel.choose_folder(tmp_path / "out")
    return quick


@pytest.mark.parametrize("form", list(ENDINGS))
def test_all_images_are_written_in_every_format(two: MedvarWidget, settle: Settle, tmp_path: Path, form: str) -> None:
    """What was made could not be taken out of napari, or lost that it is synthetic."""
    panel = two.save.panel
    panel.format_combo.setCurrentIndex(panel.format_combo.findData(form))
    panel.what_combo.setCurrentIndex(panel.what_combo.findData("all"))
    panel.save_button.click()
    settle(two)
    assert not two.message.isVisible(), two.message.text.text()
    files = sorted((tmp_path / "out").glob(f"ct-abdomen-axial-seed*{ENDINGS[form]}"))
    assert len(files) == 2
    assert "2 of 2 written" in panel.report_label.text()
    assert panel.report_label.isVisible()  # though the fold is shut
    if form != "dicom":
        assert {read_trace(file).to_json() for file in files} == {n.trace.to_json() for n in two.session.tree.nodes}


def test_nothing_is_overwritten(two: MedvarWidget, settle: Settle, tmp_path: Path) -> None:
    """Images of last week would be gone."""
    two.save.panel.save_button.click()
    settle(two)
    (file,) = (tmp_path / "out").glob("*.png")
    before = file.read_bytes()
    two.save.panel.save_button.click()
    settle(two)
    assert "exists already" in two.message.text.text()
    assert file.read_bytes() == before


def test_a_failed_save_does_not_report_earlier_files(two: MedvarWidget, settle: Settle) -> None:
    """“1 of 1 written” would stand below the message that nothing was written."""
    for _ in range(2):
        two.save.panel.save_button.click()
        settle(two)
    assert two.message.isVisible()
    assert two.save.panel.report_label.text() == ""


def test_eight_and_sixteen_bits_lie_side_by_side(two: MedvarWidget, settle: Settle, tmp_path: Path) -> None:
    """Whoever wants both would have to make a folder for each."""
    panel = two.save.panel
    for form in ("png", "png16"):
        panel.format_combo.setCurrentIndex(panel.format_combo.findData(form))
        panel.save_button.click()
        settle(two)
        assert not two.message.isVisible(), two.message.text.text()
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_a_folder_that_cannot_be_made_is_reported(two: MedvarWidget, settle: Settle, tmp_path: Path) -> None:
    """A read-only disk would bring a traceback."""
    (tmp_path / "file").write_text("")
    two.save.panel.choose_folder(tmp_path / "file" / "inside")
    two.save.panel.save_button.click()
    settle(two)
    assert "Cannot create the folder" in two.message.text.text()


def test_a_set_is_generated_and_written(quick: MedvarWidget, settle: Settle, tmp_path: Path) -> None:
    """A training set would take as many clicks as images."""
    quick.sampling.show_seed(100)
    for box, count in zip(quick.save.panel.counts.values(), (9, 2), strict=True):
        box.setValue(count)
    quick.save.panel.choose_folder(tmp_path / "set")
    quick.save.panel.set_button.click()
    settle(quick)
    assert len(list((tmp_path / "set").glob("ct-abdomen-axial-seed*.png"))) == 9
    assert {path.stem for path in (tmp_path / "set").glob("mr*")} == {f"mr-brain-axial-seed{s}" for s in (109, 110)}
    assert quick.session.tree.nodes == ()  # sets are not looked at one by one
    assert "11 of 11" in quick.status.progress.text()


def test_a_set_that_is_stopped_leaves_whole_images(
    quick: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot, tmp_path: Path
) -> None:
    """Stopping a long run would lose what was made, or leave half a file."""
    next(iter(quick.save.panel.counts.values())).setValue(40)
    quick.save.panel.choose_folder(tmp_path / "set")
    gate = models.backend.before_step = Gate(at=0)
    quick.save.panel.set_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    quick.scales.stop_button.click()
    gate.open()
    settle(quick)
    files = list((tmp_path / "set").glob("*"))
    assert len(files) < 40
    assert all(read_trace(file).pyramid.complete for file in files)
    assert quick.scales.generate_button.isEnabled()


def test_a_session_is_saved_and_opened(
    two: MedvarWidget, settle: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One could not go on tomorrow."""
    two.session.rename(two.session.tree.nodes[1].id, "tomorrow")
    two.views.show_view("entropy")
    settle(two)
    path = tmp_path / "sitting.medvar"
    two.save.save_session(path)
    settle(two)
    assert path.exists()
    two.views.show_view("image")
    for node in two.session.tree.nodes:
        two.session.delete(node.id)
    two.save.open_session(path)
    settle(two)
    assert not two.message.isVisible(), two.message.text.text()
    assert [node.name for node in two.session.tree.nodes] == ["", "tomorrow"]
    assert two.views.view == "entropy"
    assert two.history.panel.without_thumbnail() == []


@pytest.mark.parametrize("content", [b"", b"nonsense", json.dumps({"medvar_session": 99}).encode()])
def test_a_damaged_file_is_reported(two: MedvarWidget, settle: Settle, tmp_path: Path, content: bytes) -> None:
    """A file cut short by a full disk would bring a traceback and take the images in use along."""
    path = tmp_path / "damaged.medvar"
    path.write_bytes(content)
    two.save.open_session(path)
    settle(two)
    assert two.message.isVisible()
    assert len(two.session.tree.nodes) == 2


@pytest.mark.parametrize("policy", ["withhold", "flag"])
def test_copies_of_training_slices(
    two: MedvarWidget, settle: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """A patient's slice would be saved as nobody's, or vanish without a word."""

    class Wary:
        def risk(self, image: object) -> CopyRisk:
            seen.append(image)
            return CopyRisk(0.1 if len(seen) == 1 else 0.9, 0.2)

    seen: list[object] = []
    monkeypatch.setattr(CopyScreen, "of", lambda _, asked: CopyScreen(asked, Wary()))
    panel = two.save.panel
    panel.offer_copies(True)
    panel.copies_combo.setCurrentIndex(panel.copies_combo.findData(policy))
    panel.what_combo.setCurrentIndex(panel.what_combo.findData("all"))
    panel.save_button.click()
    settle(two)
    assert not two.message.isVisible(), two.message.text.text()
    files = sorted((tmp_path / "out").glob("*.png"))
    flags = [read_about_pixels(file)["nearness"]["flagged"] for file in files]
    if policy == "withhold":
        assert flags == [False]
        assert "1 of 2 written" in panel.report_label.text()
        assert "1 withheld" in panel.report_label.text()
    else:
        assert flags == [True, False]


def test_a_mark_is_burned_in(two: MedvarWidget, settle: Settle, tmp_path: Path) -> None:
    """Images for slides would lose that they are synthetic as soon as they are pasted."""
    two.save.panel.burn_in_box.setChecked(True)
    two.save.panel.save_button.click()
    settle(two)
    (file,) = (tmp_path / "out").glob("*.png")
    assert read_about_pixels(file)["burned_in"] is True
