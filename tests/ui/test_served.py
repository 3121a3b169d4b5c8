"""The widget on a server's model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medvar_engine.bundle.read import find_bundle, read_bundle, shipped_bundles
from napari_medvar import widget as widget_module

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_medvar.widget import MedvarWidget

TOKEN = "a-token-of-some-length"


@pytest.fixture
def open_on(
    viewer: Any, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], MedvarWidget]]:
    """The widget of a user who set this address."""
    from napari_medvar.settings import Settings

    opened = []

    def open_it(address: str) -> MedvarWidget:
        token = tmp_path / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        settings = Settings(server=address, token_file=str(token), autosave=False)
        monkeypatch.setattr(widget_module, "read_settings", lambda: settings)
        opened.append(widget_module.MedvarWidget(viewer))
        viewer.window.add_dock_widget(opened[-1])
        return opened[-1]

    yield open_it
    for widget in opened:
        widget.worker.close()
        qtbot.waitUntil(lambda widget=widget: not widget.worker.running, timeout=60_000)


@pytest.mark.skipif(not shipped_bundles(), reason="no bundle ships with this installation")
def test_images_come_from_the_server(
    open_on: Callable[[str], MedvarWidget], settle: Callable[[MedvarWidget], None], served: Callable[..., str]
) -> None:
    """Whoever set a server would see the small model of this computer, or a form for the wrong model."""
    widget = open_on(address := served(bundle=find_bundle(), token=TOKEN))
    settle(widget)
    assert widget.bundle.combo.currentText() == read_bundle(find_bundle()).name
    widget.scales.generate_button.click()
    settle(widget)
    session = widget.session
    assert session.opened is not None
    assert session.opened.generator.backend.info.provider.endswith(address)
    assert session.node is not None
    assert session.node.complete


def test_a_missing_server_is_reported(
    open_on: Callable[[str], MedvarWidget], settle: Callable[[MedvarWidget], None]
) -> None:
    """The widget would not open, or stay empty without a word."""
    widget = open_on("http://127.0.0.1:1")
    settle(widget)
    assert "cannot be reached" in widget.message.text.text()
