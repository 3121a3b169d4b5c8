"""The documentation says what is so: its commands parse, its settings exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from medvar_engine.cli.main import app
from medvar_engine.data.recipe_file import recipe_names
from medvar_engine.train.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.rglob("recipes/README.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `medvar` call in a page's shell blocks."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["medvar"]:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_parse(page: Path) -> None:
    """Whoever copies a command from the documentation would get an error about an option that was renamed."""
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for verb, *arguments in commands(page):
        command = verbs[verb]
        while hasattr(command, "commands"):  # a group of verbs
            verb, *arguments = arguments
            command = command.commands[verb]
        context = command.make_context(verb, list(arguments))
        if verb == "train":
            settings = [word for word in arguments if "=" in word]
            recipe = next((word for word in arguments if word.endswith(".toml")), None)
            given = ROOT / "medvar_engine" / "train" / "recipes" / Path(recipe).name if recipe else None
            load_config(given, settings)
        assert context.params


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    """A reader would follow a link to a page that was moved."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_there_are_commands() -> None:
    """The tests above would pass because they find nothing."""
    assert sum(len(list(commands(page))) for page in PAGES) > 15


def test_every_recipe_is_listed() -> None:
    """A data set that is supported would not be found by whoever has it."""
    page = (ROOT / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in recipe_names() if f"| `{name}` |" not in page] == []
