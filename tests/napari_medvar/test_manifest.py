"""What napari reads before it loads the plugin, and what loading it brings in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import napari_medvar

MANIFEST = Path(napari_medvar.__file__).parent / "napari.yaml"


def test_the_manifest_is_valid_and_names_the_widget() -> None:
    """napari would not list the plugin, or list it without its widget."""
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["MedVAR Generate"]


def test_menus_are_ones_that_napari_lets_plugins_add_to() -> None:
    """A menu entry would silently not appear."""
    npe2 = pytest.importorskip("npe2")
    menus = pytest.importorskip("napari._app_model.constants._menus")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    assert all(menus.is_menu_contributable(menu) for menu in manifest.contributions.menus)


def test_the_plugin_loads_no_torch() -> None:
    """napari would take seconds more to open the widget, and fail where torch is not installed."""
    pytest.importorskip("napari")
    pytest.importorskip("qtpy.QtWidgets", reason="needs Qt", exc_type=Exception)
    code = "import sys, napari_medvar.widget; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_session_loads_no_qt() -> None:
    """Sessions could not be scripted on a machine without a display."""
    code = (
        "import sys, napari_medvar.session; sys.exit(any(n.split('.')[0] in ('qtpy', 'napari') for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
