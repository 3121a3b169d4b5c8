"""A test that is skipped in CI fails there, for nobody would notice that it no longer tests anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"
SKIPS = """
import pytest

def test_whole(): pass

@pytest.mark.skip(reason="needs napari")
def test_marked(): pass

@pytest.mark.skip(reason="real data: no scans")
def test_real_data(): pass

def test_called(): pytest.skip("no such tool")

@pytest.mark.xfail(reason="known")
def test_expected(): assert False
"""


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ([], {"passed": 1, "skipped": 4, "xfailed": 1}),
        (["--no-skips"], {"passed": 1, "skipped": 1, "xfailed": 1, "failed": 1, "errors": 2}),
    ],
)
def test_skips_fail_where_everything_is_installed(tmp_path: Path, options: list[str], counts: dict[str, int]) -> None:
    (tmp_path / "test_some.py").write_text(SKIPS, encoding="utf-8")
    (tmp_path / "test_module.py").write_text(
        "import pytest\npytest.importorskip('no_such_package')\n", encoding="utf-8"
    )
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no_skips", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*call, "--continue-on-collection-errors", *options, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(FIXTURES), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    found = re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])
    assert {outcome: int(count) for count, outcome in found} == counts, done.stdout + done.stderr
