"""How far the work is: in the panel, in napari's activity dock, and a word when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fakes import FakeModels, Gate
from pytestqt.qtbot import QtBot

from napari_medvar import activity, work_report
from napari_medvar.widget import MedvarWidget

WAIT = 60_000
Settle = Callable[[MedvarWidget], None]


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What napari tells the user."""
    from napari.utils.notifications import notification_manager

    texts: list[str] = []

    def note(notification: object) -> None:
        texts.append(str(notification.message))  # type: ignore[attr-defined]

    notification_manager.notification_ready.connect(note)
    yield texts
    notification_manager.notification_ready.disconnect(note)


def test_long_work_is_in_the_activity_dock_and_can_be_cancelled_there(
    widget: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has closed the panel would not know that something goes on, nor how to stop it."""
    from napari.utils import progress

    monkeypatch.setattr(activity, "_PATIENCE", 0.0)
    gate = models.backend.before_step = Gate(at=2)
    widget.scales.generate_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    qtbot.waitUntil(lambda: any(bar.n == 2 for bar in progress._all_instances), timeout=WAIT)
    (bar,) = progress._all_instances
    assert bar.total == 6
    assert bar.desc.startswith("MedVAR: 2 of 6 scales")
    bar.cancel()
    qtbot.wait(300)
    gate.open()
    settle(widget)
    assert not progress._all_instances
    assert widget.session.node is not None
    assert not widget.session.node.complete


def test_a_bar_that_appears_after_its_work_has_ended_goes_again(
    widget: MedvarWidget, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """napari processes events while it adds a bar, so work may end, and other work begin, meanwhile."""
    from napari.utils import progress

    monkeypatch.setattr(activity, "_PATIENCE", 0.0)
    report = widget.findChild(activity.Activity)
    assert report is not None
    added: list[progress] = []

    def go_on(event: object) -> None:
        bars = list(event.added)  # type: ignore[attr-defined]
        added.extend(bars)
        if bars and len(added) == 1:
            report.begin("writing", lambda: None)
            qtbot.waitUntil(lambda: len(added) == 2, timeout=WAIT)

    progress._all_instances.events.changed.connect(go_on)
    report.begin("reading", lambda: None)
    qtbot.waitUntil(lambda: len(added) == 2 and len(progress._all_instances) == 1, timeout=WAIT)
    progress._all_instances.events.changed.disconnect(go_on)
    (bar,) = progress._all_instances
    assert bar.desc.startswith("MedVAR: writing")
    report.end()
    assert not progress._all_instances


def test_quick_work_leaves_the_activity_dock_alone(
    widget: MedvarWidget, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar would flash with every image."""
    from napari.utils import progress

    monkeypatch.setattr(activity, "_PATIENCE", 60.0)
    seen: list[int] = []
    monkeypatch.setattr(progress, "__init__", lambda *_, **__: seen.append(1))
    widget.scales.generate_button.click()
    settle(widget)
    assert not seen


def test_after_long_work_a_notification_says_that_it_is_done(
    quick: MedvarWidget, settle: Settle, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does something else meanwhile would have to look again and again."""
    quick.scales.generate_button.click()
    settle(quick)
    assert not told
    monkeypatch.setattr(work_report, "_LONG", 0.0)
    quick.sampling.count_box.setValue(3)
    quick.scales.generate_button.click()
    settle(quick)
    assert told == ["MedVAR is done: image 3 of 3."]


def test_several_images_say_how_many_and_how_long(
    quick: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could tell whether to wait or to get a coffee."""
    monkeypatch.setattr(work_report, "_NO_GUESS", 0.0)
    quick.sampling.count_box.setValue(4)
    gate = models.backend.before_step = Gate(at=5)
    quick.scales.generate_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    qtbot.waitUntil(lambda: quick.status.progress.format().startswith("5 of 6 scales · 4 images"), timeout=WAIT)
    assert " left" in quick.status.progress.format()
    gate.open()
    settle(quick)
    assert quick.status.progress.format().startswith("image 4 of 4")


def test_no_time_is_left_of_work_that_was_stopped(
    quick: MedvarWidget, settle: Settle, models: FakeModels, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The panel would say “about 45 min left” after the first scale, and for ever after a stop."""
    monkeypatch.setattr(work_report, "_NO_GUESS", 0.0)
    gate = models.backend.before_step = Gate(at=1)
    quick.scales.generate_button.click()
    qtbot.waitUntil(lambda: quick.status.progress.format().startswith("1 of 6 scales"), timeout=WAIT)
    assert " left" not in quick.status.progress.format()
    models.backend.before_step = later = Gate(at=4)
    gate.open()
    qtbot.waitUntil(lambda: quick.status.progress.format().startswith("4 of 6 scales"), timeout=WAIT)
    assert " left" in quick.status.progress.format()
    quick.scales.stop_button.click()
    later.open()
    settle(quick)
    assert not quick.session.node.complete  # type: ignore[union-attr]
    assert " left" not in quick.status.progress.format()
