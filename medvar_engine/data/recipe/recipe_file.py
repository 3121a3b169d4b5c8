"""Reads a `DatasetRecipe` from YAML: those of the package, or the user's own."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path

from medvar_engine.data.recipe.dataset_recipe import DatasetRecipe, Entry
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted.yaml_fields import read_fields

TEMPLATE = "template"
LARGEST_FILE = 64 * 1024
SUFFIXES = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """The names of the recipes in the package."""
    names = (path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))
    return sorted(name for name in names if name != TEMPLATE)


def load_recipe(name_or_path: str | Path) -> DatasetRecipe:
    """Load a recipe of the package by name, or one from a YAML file.

    Raises `MedvarError` that names the file, the line, the field, and what is expected there.
    """
    text = str(name_or_path)
    if text.lower().endswith(SUFFIXES) or isinstance(name_or_path, Path):
        return _read(Path(name_or_path))
    if text not in (*recipe_names(), TEMPLATE):
        raise MedvarError(
            f"There is no recipe {text!r}. Recipes are {', '.join(recipe_names())}; "
            "or name a file of your own that ends in .yaml."
        )
    return _read(_folder() / f"{text}.yaml")


def _read(path: Path) -> DatasetRecipe:
    known = {name: [one.name for one in fields(kind)] for name, kind in (("", DatasetRecipe), ("entries", Entry))}
    return read_fields(path, "recipe", DatasetRecipe, known, LARGEST_FILE).value


def _folder() -> Path:
    return Path(str(resources.files("medvar_engine.data.recipe") / "shipped"))
