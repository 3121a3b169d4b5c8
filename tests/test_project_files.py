"""The files that GitHub, PyPI and the people who come from there read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import medvar_engine

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md")]
YAML = [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_is_well_formed(path: Path) -> None:
    """GitHub would ignore the file without a word."""
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_citation_is_of_this_version() -> None:
    """Papers would cite a version that their authors did not use."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == medvar_engine.__version__
    assert citation["license"] == project()["license"]
    assert citation["repository-code"] == project()["urls"]["Homepage"]
    assert "2602.14512" in citation["references"][0]["url"]
    assert all(reference["authors"] and reference["title"] for reference in citation["references"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_for_contributors_lead_somewhere(page: Path) -> None:
    """The first thing that a contributor tries would fail."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert all((page.parent / link).exists() for link in links)
    for folder in re.findall(r"`((?:\w+/)+)`", text):
        assert any(ROOT.glob(folder)) or any(ROOT.glob(f"*/{folder}")) or any(ROOT.glob(f"*/*/{folder}")), folder


def test_workflows_run_what_exists() -> None:
    """CI on GitHub would fail for a test folder that was renamed, or an extra that is no more."""
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob(".github/workflows/*.yml"))
    assert ".ci/run" in text
    for path in re.findall(r"\btests/[\w./]*\w", text):
        assert (ROOT / path).exists(), path
    for extras in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= project()["optional-dependencies"].keys(), extras
