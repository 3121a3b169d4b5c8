"""The plugin's settings, in napari and without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import npe2
import numpy as np
import pytest

import napari_medvar
from napari_medvar import settings as settings_module
from napari_medvar.settings import Settings, new_session, read_settings, write_settings

MANIFEST = Path(napari_medvar.__file__).parent / "napari.yaml"


def test_without_napari_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions could not be scripted where napari is not installed."""
    monkeypatch.setitem(sys.modules, "napari.settings", None)
    assert read_settings() == Settings()


def test_the_manifest_offers_each_setting_with_the_same_default() -> None:
    """Preferences would show one thing and do another."""
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    offered = {
        name: (value.default, bool(value.title), bool(value.description))
        for group in manifest.contributions.configurations.values()
        for name, value in group.properties.items()
    }
    assert offered == {field.name: (field.default, True, True) for field in fields(Settings)}


def test_what_the_user_sets_in_napari_is_read(
    plugin_settings: Any, npe2pm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change in Preferences would have no effect."""
    from napari.settings import get_plugin_settings

    npe2pm.register(npe2.PluginManifest.from_file(MANIFEST))
    assert read_settings() == Settings()
    values = get_plugin_settings("napari-medvar")
    values.making.device = "cpu"
    values.making.bundle = " /my/bundle "
    values.making.show_previews = False
    values.making.server = " https://gpu.example "
    values.making.token_file = "~/token"
    values.keeping.autosave = False
    values.keeping.autosave_folder = "~/sessions"
    settings = read_settings()
    assert settings == Settings("cpu", "/my/bundle", False, False, "~/sessions", "https://gpu.example", "~/token")
    assert settings.sessions == Path.home() / "sessions"


def test_what_is_chosen_in_the_panel_is_read_at_the_next_start(plugin_settings: Any, npe2pm: Any) -> None:
    """One would type the server's address every morning."""
    npe2 = pytest.importorskip("npe2")
    npe2pm.register(npe2.PluginManifest.from_file(MANIFEST))
    chosen = Settings("cpu", server="https://gpu.example", token_file="/token")
    write_settings(chosen)
    assert read_settings() == chosen


def test_sessions_follow_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autosave off would still write; another device would not be used."""
    from fakes import FakeModels

    from medvar_engine.generate.trace import Request

    asked = []

    def open_it(name: object, bundle_id: object, device: str) -> object:
        asked.append(device)
        return FakeModels()(None)

    monkeypatch.setattr(settings_module, "open_bundle", open_it)
    for autosave in (True, False):
        folder = tmp_path / str(autosave)
        session = new_session(
            Settings(device="cpu", show_previews=False, autosave=autosave, autosave_folder=str(folder))
        )
        session.load()
        list(session.generate(Request()))
        assert folder.exists() == autosave
        assert not session.show_previews
        session.close()
    assert asked == ["cpu", "cpu"]


def test_a_server_makes_the_images(
    served: Callable[..., str], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting would be there, and this computer still do the work; or a bundle that is here not be opened."""
    from medvar_engine.conditions import Condition
    from medvar_engine.errors import MedvarError
    from medvar_engine.generate.trace import Request
    from napari_medvar.session.opened_bundle import open_bundle_of

    token = tmp_path / "token"
    token.write_text("a-token-of-some-length")
    token.chmod(0o600)
    settings = Settings(
        device="cpu", autosave=False, server=served(token="a-token-of-some-length"), token_file=str(token)
    )
    request = Request(Condition("CT", "chest"), seed=5)
    images = []
    for name, where in ((None, settings.server), (tiny_bundle, "CPUExecutionProvider")):
        session = new_session(settings)
        provider = session.load(name).generator.backend.info.provider
        assert provider.endswith(where)
        *_, last = session.generate(request)
        list(session.resample(1, Request(Condition("MR"), seed=6)))
        *_, varied = session.previews()
        images.append((last.pixels, varied.pixels, session.trace))
        session.close()
    for one, two in zip(*(shown[:2] for shown in images), strict=True):
        np.testing.assert_array_equal(one, two)
    trace = images[0][2]
    assert trace is not None
    found = open_bundle_of(trace.bundle_id, [], "cpu", settings.connection)
    assert found.generator.backend.info.provider.endswith(settings.server)
    wrong = new_session(Settings(autosave=False, server="gpu.example"))
    with pytest.raises(MedvarError, match="The address of a server must be like"):
        wrong.load()
