"""The documentation says what is so: its commands parse, its code runs, its links lead somewhere, and it builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from typing import Any

import nibabel
import numpy as np
import pytest
import typer.main

from medvar_engine.cli.main import app
from medvar_engine.data.recipe.recipe_file import recipe_names
from medvar_engine.train.config import load_config

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, *sorted(ROOT.rglob("recipes/README.md"))]

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
EACH_OF_DOCS = pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())


@dataclass(frozen=True)
class Block:
    """Code of a page. A comment in the line before it may say ``run``, ``not run: why`` or ``file: NAME``."""

    mark: str
    language: str
    code: str

    @property
    def runs(self) -> bool:
        """Python runs unless it is said not to. A command runs only if it is said to: most need hours, or a scanner."""
        return self.mark == "run" or (self.language == "python" and not self.mark)

    def commands(self) -> Iterator[list[str]]:
        """The words of every `medvar` call of a shell block."""
        if self.language == "sh":
            for line in self.code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["medvar"]:
                    yield words[1:]


def blocks(page: Path) -> list[Block]:
    """In the order of the page."""
    pattern = r"^(?:<!-- ([^\n]*) -->\n)?```(\w*)\n(.*?)^```$"
    found = re.findall(pattern, page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [Block(*parts) for parts in found]


def commands(page: Path) -> Iterator[list[str]]:
    """Every `medvar` call of a page."""
    for block in blocks(page):
        yield from block.commands()


@EACH_PAGE
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


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.runs for block in blocks(page))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copies code from the documentation would get an error, in the first minutes with this software."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medvar_engine.data.identity.pseudonyms.default_key_path", lambda: tmp_path / "patient.key")
    write_scans(tmp_path / "scans")
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.mark.startswith("file: "):
            Path(block.mark.removeprefix("file: ")).write_text(block.code, encoding="utf-8")
        elif block.runs and block.language == "python":
            exec(compile(block.code, page.name, "exec"), names)
        elif block.runs:
            for words in block.commands():
                assert not app(words, prog_name="medvar", standalone_mode=False), words


def write_scans(folder: Path) -> None:
    """Scans of three people who never were: what pages call `scans`."""
    folder.mkdir()
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, 48)] * 3, indexing="ij"))
    for person, name in enumerate(("alice", "bob", "carol")):
        width = np.reshape([0.7, 0.8, 0.6 + person / 10], (3, 1, 1, 1))
        ball = np.clip(2 - 2 * np.square(place / width).sum(0), 0, 1)
        noise = np.random.default_rng(person).normal(0, 0.05, ball.shape)
        values = np.float32(1000 * ball * (1 + 0.3 * np.sin(9 * place[person])) + 100 * np.abs(noise))
        nibabel.save(nibabel.Nifti1Image(values, np.diag([4.0, 4.0, 4.0, 1.0])), folder / f"{name}.nii.gz")


@EACH_PAGE
def test_markup_is_valid(page: Path) -> None:
    """A block would silently not run because of a slip in its mark."""
    for block in blocks(page):
        assert re.fullmatch(r"|run|not run: .{8,}|file: [\w.-]+", block.mark), block.mark
        assert block.language != "" or "medvar " not in block.code, "a command outside a block of `sh` is not checked"


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    """A reader would follow a link to a page that was moved."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@EACH_PAGE
def test_scripts_and_extras_exist(page: Path) -> None:
    """A figure could not be measured again, or an installation would fail, for a name that is no more."""
    text = page.read_text(encoding="utf-8")
    for script in re.findall(r"\b(?:benchmarks|docs)/\w+\.py\b", text):
        assert (ROOT / script).exists(), script
    for named in re.findall(r"(?:\"\.|napari-medvar)\[([\w,]+)\]", text):
        assert set(named.split(",")) <= extras(), named


def extras() -> set[str]:
    """What `pip install ".[…]"` takes."""
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])


@EACH_OF_DOCS
def test_pages_name_their_readers(page: Path) -> None:
    """A reader would have to read a page to find that it is not meant for them."""
    title, blank, purpose, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert blank == ""
    assert purpose.startswith("*For ")


def test_the_documentation_contains_code() -> None:
    """The tests above would pass because they find nothing."""
    assert sum(len(list(commands(page))) for page in PAGES) > 30
    assert sum(block.runs for page in PAGES for block in blocks(page)) >= 10


def test_every_recipe_is_listed() -> None:
    """A data set that is supported would not be found by whoever has it."""
    page = (ROOT / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in recipe_names() if f"| `{name}` |" not in page] == []


def test_every_extra_is_listed() -> None:
    """Whoever lacks a library would not be told how to get it."""
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    assert {name for name in extras() if f"| `{name}` |" not in page} == set()


def test_the_command_line_is_as_described() -> None:
    """An option would be looked for in vain, or one that is there not be found."""
    script = run_path(str(ROOT / "docs" / "cli.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run: python docs/cli.py"


def test_the_page_on_the_plugin_is_the_guide_of_the_plugin() -> None:
    """The widget would say one thing, and the page another."""
    script = run_path(str(ROOT / "docs" / "guide.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run: python docs/guide.py"


def test_the_training_settings_are_as_described() -> None:
    """A setting would be looked for in the source, or the page tell a default that is no longer so."""
    script = run_path(str(ROOT / "docs" / "training_settings.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run: python docs/training_settings.py"


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """A page would be in no menu, a link or anchor lead nowhere, or reading the pages tell a stranger about it."""
    config = ROOT / "docs" / "site" / "mkdocs.yml"
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").exists()
    outside = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    for built in tmp_path.rglob("*.html"):
        assert outside.findall(built.read_text(encoding="utf-8")) == [], built.name
