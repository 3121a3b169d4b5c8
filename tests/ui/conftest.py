"""The real widget in a real viewer, on a fake model. Needs a display with OpenGL: run under `xvfb-run` without one."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# Some fixtures train a model. Torch then loads the LLVM of triton, which crashes if the LLVM of Mesa's OpenGL is loaded
# already. The plugin itself never imports torch.
with suppress(ImportError):
    import torch._dynamo  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from fakes import FakeModels
    from pytestqt.qtbot import QtBot

    from napari_medvar.widget import MedvarWidget

WAIT = 60_000  # ms; generous, for slow machines with software OpenGL


def _why_not() -> str | None:
    try:
        import napari  # noqa: F401
        import pytestqt  # noqa: F401
        from qtpy import QtWidgets  # noqa: F401
    except Exception as error:
        return f"needs napari, a Qt binding and pytest-qt: {error}"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "needs a display: run the tests under `xvfb-run -a`"
    if os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "minimal"):
        return "needs OpenGL, which QT_QPA_PLATFORM=offscreen lacks: unset it and run under `xvfb-run -a`"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := _why_not():
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def models() -> FakeModels:
    """How bundles are opened in these tests."""
    from fakes import FakeModels

    return FakeModels()


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autosaves go elsewhere, layers touched outside the GUI thread raise, and random seeds are the same each run."""
    from napari_medvar.panels import sampling_panel

    monkeypatch.setattr(sampling_panel, "secrets", SimpleNamespace(randbelow=random.Random(0).randrange))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "1")


@pytest.fixture(scope="session")
def shared_viewer(qapp: Any) -> Iterator[Any]:
    """One window for all: it takes seconds to open, and so does its first layer."""
    import napari

    viewer = napari.Viewer(show=True)
    yield viewer
    viewer.close()


@pytest.fixture
def viewer(shared_viewer: Any) -> Iterator[Any]:
    """A real viewer as plugins get it; only blank scale layers may be left in it from the test before."""
    from napari.utils._proxies import PublicOnlyProxy

    yield PublicOnlyProxy(shared_viewer)
    shared_viewer.window.remove_dock_widget("all")
    shared_viewer.canvas.grid.enabled = False
    for layer in list(shared_viewer.layers):
        if layer.metadata.get("medvar", {}).get("scale") is None or layer.rgb or layer.ndim != 2:
            shared_viewer.layers.remove(layer)
        else:
            layer.metadata = {"medvar": {"trace": None, "scale": layer.metadata["medvar"]["scale"], "synthetic": True}}
            layer.visible = False


@pytest.fixture
def own_viewer(qapp: Any) -> Iterator[Any]:
    """A window that the test may close."""
    import napari

    viewer = napari.Viewer(show=True)
    yield viewer
    viewer.close()


@pytest.fixture
def plugin(npe2pm: Any) -> None:
    """The plugin as napari finds it."""
    from npe2 import PluginManifest

    import napari_medvar

    npe2pm.register(PluginManifest.from_file(Path(napari_medvar.__file__).parent / "napari.yaml"))


@pytest.fixture
def open_widget(
    viewer: Any, models: FakeModels, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], MedvarWidget]]:
    """Opens the widget in the viewer, as if the fake bundle were the one that ships."""
    from napari_medvar import widget as widget_module
    from napari_medvar.session.generation_session import GenerationSession
    from napari_medvar.widget import MedvarWidget

    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    opened: list[MedvarWidget] = []

    def open_it(into: Any = viewer) -> MedvarWidget:
        widget = MedvarWidget(into, GenerationSession(models))
        into.window.add_dock_widget(widget, name="MedVAR Generate")
        opened.append(widget)
        return widget

    yield open_it
    for widget in opened:
        widget.worker.close()
        qtbot.waitUntil(lambda widget=widget: not widget.worker.running, timeout=WAIT)


@pytest.fixture
def widget(open_widget: Callable[[], MedvarWidget], settle: Callable[[MedvarWidget], None]) -> MedvarWidget:
    """The widget with its model loaded."""
    widget = open_widget()
    settle(widget)
    return widget


@pytest.fixture
def quick(
    models: FakeModels, qtbot: QtBot, settle: Callable[[MedvarWidget], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[MedvarWidget]:
    """The widget with its model loaded, on a viewer without a window: no OpenGL, and hence quick."""
    from napari.components import ViewerModel

    from napari_medvar import widget as widget_module
    from napari_medvar.session.generation_session import GenerationSession
    from napari_medvar.widget import MedvarWidget

    monkeypatch.setattr(widget_module, "shipped_bundles", lambda: {"fake": Path("fake")})
    widget = MedvarWidget(ViewerModel(), GenerationSession(models))
    qtbot.addWidget(widget)
    widget.show()
    settle(widget)
    yield widget
    widget.worker.close()
    qtbot.waitUntil(lambda: not widget.worker.running, timeout=WAIT)


@pytest.fixture
def settle(qtbot: QtBot) -> Callable[[MedvarWidget], None]:
    """Waits until the engine has nothing to do any more."""

    def wait(widget: MedvarWidget) -> None:
        small_text = 0
        while small_text < 3:  # work may be followed by more: a deleted layer is made again afterwards
            qtbot.waitUntil(lambda: not widget.busy, timeout=WAIT)
            qtbot.wait(10)
            small_text = 0 if widget.busy else small_text + 1

    return wait


@pytest.fixture
def made(quick: MedvarWidget, settle: Callable[[MedvarWidget], None]) -> MedvarWidget:
    """A finished image."""
    quick.scales.generate_button.click()
    settle(quick)
    return quick


@pytest.fixture
def shows_current() -> Callable[[MedvarWidget], None]:
    """Checks that the layer of every scale shows the current image, in its own values."""

    def check(widget: MedvarWidget) -> None:
        node = widget.session.node
        assert node is not None
        space = widget.session.image_space_of(node)
        for preview in widget.session.previews():
            layer = widget.image_view.layers.all()[preview.k]
            np.testing.assert_allclose(
                space.placement.image(np.asarray(layer.data)), space.display.values(preview.pixels), atol=0.01
            )
            assert tuple(layer.contrast_limits) == (space.display.low, space.display.high)

    return check
