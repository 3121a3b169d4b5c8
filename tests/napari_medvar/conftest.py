"""These tests run without Qt, a display or a bundle; the fake model is shared with those that drive the widget."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "ui"))
