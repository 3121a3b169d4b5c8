"""The plugin's settings, in napari and without."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import napari_medvar
from napari_medvar import settings as settings_module
from napari_medvar.settings import Settings, new_session, read_settings

MANIFEST = Path(napari_medvar.__file__).parent / "napari.yaml"


def test_without_napari_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions could not be scripted where napari is not installed."""
    monkeypatch.setitem(sys.modules, "napari.settings", None)
    assert read_settings() == Settings()


def test_the_manifest_offers_each_setting_with_the_same_default() -> None:
    """Preferences would show one thing and do another."""
    npe2 = pytest.importorskip("npe2")
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
    npe2 = pytest.importorskip("npe2")
    from napari.settings import get_plugin_settings

    npe2pm.register(npe2.PluginManifest.from_file(MANIFEST))
    assert read_settings() == Settings()
    values = get_plugin_settings("napari-medvar")
    values.making.device = "cpu"
    values.making.bundle = " /my/bundle "
    values.making.show_previews = False
    values.keeping.autosave = False
    values.keeping.autosave_folder = "~/sessions"
    settings = read_settings()
    assert settings == Settings("cpu", "/my/bundle", False, False, "~/sessions")
    assert settings.sessions == Path.home() / "sessions"


def test_sessions_are_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autosave off would still write; another device would not be used."""
    from fakes import FakeModels

    from medvar_engine.trace import Request

    asked = []

    def open_it(name: object, device: str) -> object:
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
