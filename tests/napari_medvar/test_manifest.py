"""What napari reads before it loads the plugin, and what loading it brings in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import npe2

import napari_medvar

MANIFEST = Path(napari_medvar.__file__).parent / "napari.yaml"


def test_the_manifest_is_valid_and_names_the_widget() -> None:
    """napari would not list the plugin, or list it without its widget."""
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["MedVAR Generate"]


def test_npe2_calls_the_manifest_valid() -> None:
    """napari's hub would refuse the plugin."""
    code = "from npe2.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code, "validate", str(MANIFEST)], capture_output=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_other_images_are_saved_by_napari() -> None:
    """Saving any image as PNG would fail, for everybody who has the plugin installed."""
    manager = npe2.PluginManager()
    manager.discover()
    writer, _ = manager.get_writer("camera.png", ["image"])
    assert writer.plugin_name == "napari"
    writer, _ = manager.get_writer("work.medvar", ["image", "image"])
    assert writer.plugin_name == "napari-medvar"


def test_other_files_are_opened_by_napari() -> None:
    """napari would ask everybody, for every PNG, whether to open it with this plugin."""
    manager = npe2.PluginManager()
    manager.discover()
    readers = {path: [r.plugin_name for r in manager.iter_compatible_readers([path])] for path in ("a.png", "a.medvar")}
    assert "napari-medvar" not in readers["a.png"]
    assert readers["a.medvar"] == ["napari-medvar"]


def test_menus_are_ones_that_napari_lets_plugins_add_to() -> None:
    """A menu entry would silently not appear."""
    from napari._app_model.constants import _menus as menus

    manifest = npe2.PluginManifest.from_file(MANIFEST)
    assert all(menus.is_menu_contributable(menu) for menu in manifest.contributions.menus)


def test_the_plugin_loads_no_torch() -> None:
    """napari would take seconds more to open the widget, and fail where torch is not installed."""
    code = "import sys, napari_medvar.widget; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_session_loads_no_qt() -> None:
    """Sessions could not be scripted on a machine without a display."""
    code = (
        "import sys, napari_medvar.session.generation_session\n"
        "sys.exit(any(n.split('.')[0] in ('qtpy', 'napari') for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
