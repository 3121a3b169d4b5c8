"""What scripts import, and what they may rely on."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import medvar_engine as medvar


def test_every_public_name_is_there() -> None:
    """A script would get an AttributeError for a name that the documentation shows."""
    for name in medvar.__all__:
        assert getattr(medvar, name) is not None, name
    assert set(medvar.__all__) <= set(dir(medvar))
    assert medvar.Condition(region="brain") == medvar.Request(medvar.Condition(region="brain")).condition


def test_a_name_that_does_not_exist_is_reported_to_be_missing() -> None:
    """`hasattr`, and tools that look at modules, would fail in odd ways."""
    with pytest.raises(AttributeError, match="no attribute 'Generatr'"):
        medvar.Generatr  # noqa: B018


def test_a_public_name_does_not_depend_on_what_was_imported_before() -> None:
    """`medvar.make_image` would be a module instead of the function in scripts that import both."""
    code = (
        "import medvar_engine.sets.make_image, medvar_engine.generate.generator, medvar_engine as m;"
        "assert callable(m.make_image) and callable(m.Generator) and callable(m.open_bundle)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_looking_at_a_name_loads_nothing_that_it_does_not_need() -> None:
    """A script that only describes conditions would wait for the networks' runtime."""
    code = (
        "import sys, medvar_engine as m; m.Condition, m.Request, m.Sampling, m.Trace, m.TokenPyramid, m.Generator,"
        "m.open_bundle('demo').image_size; print(*{'torch', 'onnxruntime', 'qtpy', 'napari'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_type_checkers_and_python_see_the_same_names() -> None:
    """An editor would complete a name that does not exist, or not know one that does."""
    tree = ast.parse(Path(medvar.__file__).read_text(encoding="utf-8"))
    seen = {
        name.name: node.module
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert seen == {name: f"medvar_engine.{module}" for name, module in medvar._MODULES.items()}
    assert {*seen, "__version__"} == set(medvar.__all__)
    assert medvar.__all__ == sorted(medvar.__all__)
