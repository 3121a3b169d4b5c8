from __future__ import annotations

import importlib.metadata
import importlib.resources
import subprocess
import sys

import pytest

import medvar_engine

HEAVY = ("torch", "onnxruntime", "onnx", "qtpy", "napari", "SimpleITK", "highdicom")


@pytest.mark.parametrize(
    "module",
    [
        "medvar_engine",
        "medvar_engine.generator",
        "medvar_engine.bundle",
        "medvar_engine.backends.base",
        "medvar_engine.cli.main",
        "medvar_engine.write.png",
        "medvar_engine.write.nifti",
        "medvar_engine.write.provenance",
        "napari_medvar",
        "napari_medvar.session",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    """`medvar --help` and napari's start would wait seconds, and fail where an extra is not installed."""
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_installed_package_is_whole() -> None:
    """A wheel without its data would install well and then find no recipe, no manifest and no types."""
    assert importlib.metadata.version("napari-medvar") == medvar_engine.__version__
    for package in ("medvar_engine", "medvar_export", "napari_medvar"):
        assert importlib.resources.files(package).joinpath("py.typed").is_file(), package
    recipes = importlib.resources.files("medvar_engine.train").joinpath("recipes")
    assert any(path.name.endswith(".toml") for path in recipes.iterdir())
    (manifest,) = importlib.metadata.entry_points(group="napari.manifest", name="napari-medvar")
    package, _, name = manifest.value.partition(":")
    assert importlib.resources.files(package).joinpath(name).is_file()
