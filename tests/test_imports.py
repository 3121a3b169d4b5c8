from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import medvar_engine

HEAVY = ("torch", "onnxruntime", "onnx", "qtpy", "napari", "SimpleITK", "highdicom")


@pytest.mark.parametrize(
    "module",
    [
        "medvar_engine",
        "medvar_engine.generate.generator",
        "medvar_engine.bundle.read",
        "medvar_engine.backends.base",
        "medvar_engine.cli.main",
        "medvar_engine.write.png",
        "medvar_engine.write.nifti",
        "medvar_engine.write.provenance",
        "napari_medvar",
        "napari_medvar.session.generation_session",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    """`medvar --help` and napari's start would wait seconds, and fail where an extra is not installed."""
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["generate", "--help"], ["evaluate", "--help"]])
def test_the_package_without_extras_is_enough(arguments: list[str]) -> None:
    """Who installs no extra has none of their packages; a full installation hides that one of them is needed."""
    code = f"""
import sys

class OnlyOwnDependencies:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_packages_of_extras()!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, OnlyOwnDependencies())
from medvar_engine.cli.main import main
sys.argv = ["medvar", *{arguments!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _packages_of_extras() -> set[str]:
    """The packages, by the names of their imports, that no dependency of the package without extras brings."""
    known, pending = {"napari-medvar"}, ["napari-medvar"]
    while pending:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # one of another system or Python
            for line in importlib.metadata.requires(pending.pop()) or []:
                name = _normal(re.split(r"[\[<>=,;! (~]", line)[0])
                if "extra ==" not in line and name not in known:
                    known.add(name)
                    pending.append(name)
    return {name for name, owners in packages_distributions().items() if not {_normal(one) for one in owners} & known}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


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


def test_every_imported_package_is_declared() -> None:
    """What comes only with something else is gone, or another version, when that no longer needs it."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared = {re.split(r"[\[<>=,;! ]", line)[0].lower().replace("_", "-") for line in lines}
    providers = packages_distributions()
    undeclared = set()
    for folder in ("medvar_engine", "export", "napari_medvar"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                for name in {one.split(".")[0] for one in names} - set(sys.stdlib_module_names):
                    found = {one.lower().replace("_", "-") for one in providers.get(name, [name])}
                    if name not in ("medvar_engine", "medvar_export", "napari_medvar") and not found & declared:
                        undeclared.add(name)
    assert not undeclared
