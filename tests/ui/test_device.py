"""Where models run: device and server, chosen in the panel and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeModels

from napari_medvar.controllers import device_controller
from napari_medvar.settings import Settings
from napari_medvar.widget import MedvarWidget

Settle = Callable[[MedvarWidget], None]


def test_another_server_is_used_at_once_and_stored(
    quick: MedvarWidget, settle: Settle, monkeypatch: pytest.MonkeyPatch, models: FakeModels
) -> None:
    """The address would be hidden in Preferences, and take effect some other day."""
    kept: list[Settings] = []
    opened: list[Settings] = []
    monkeypatch.setattr(device_controller, "write_settings", kept.append)

    def opener(settings: Settings) -> Any:
        opened.append(settings)
        return models

    monkeypatch.setattr(device_controller, "opener", opener)
    panel = quick.device.panel
    assert panel.state.text() == "fake runs on Fake, CPU, float32."
    quick.scales.generate_button.click()
    settle(quick)
    made = quick.session.tree.nodes
    panel.server_edit.setText(" http://127.0.0.1:8765 ")
    panel.token_edit.setText("/home/me/token")
    panel.device_combo.setCurrentIndex(panel.device_combo.findData("cpu"))
    panel.connect_button.click()
    settle(quick)
    assert (kept[0].server, kept[0].token_file, kept[0].device) == ("http://127.0.0.1:8765", "/home/me/token", "cpu")
    assert opened == kept
    assert quick.session.tree.nodes == made  # by the same model, elsewhere
    assert not quick.icons.missing([made[0].id])
    assert panel.state.text() == "fake runs on Fake, CPU, float32."


def test_a_missing_server_is_reported_and_the_model_stays(
    quick: MedvarWidget, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback; or no model any more, with an hour's images on the screen."""
    monkeypatch.setattr(device_controller, "write_settings", lambda settings: None)
    before = quick.session.opened
    panel = quick.device.panel
    panel.server_edit.setText("http://127.0.0.1:9")
    panel.connect_button.click()
    settle(quick)
    assert panel.state.text().startswith("Not connected: ")
    assert "127.0.0.1:9" in panel.state.text()
    assert quick.message.isVisible()
    assert quick.session.opened is before
    assert panel.connect_button.isEnabled()
