"""Figures of a run as one long CSV table, ``step, name, value``, and for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.storage import replace_file


class CsvLog:
    """Appends rows; a resumed run first drops what an earlier one wrote beyond its checkpoint."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[list[str]] = []
        if start and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= start]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([["step", "name", "value"], *kept])
        replace_file(path, text.getvalue().encode())

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """One row a figure."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([step, name, f"{value:.8g}"] for name, value in figures.items())


class TensorBoardLog:
    """The same figures, and the sample grids, as TensorBoard reads them: ``tensorboard --logdir FOLDER``."""

    def __init__(self, folder: Path, start: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MedvarError(
                "tensorboard=true needs TensorBoard, which is not installed: pip install tensorboard"
            ) from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=start + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """One curve a figure."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def show(self, step: int, samples: Path) -> None:
        """The PNGs of a folder."""
        for path in sorted(samples.glob("*.png")):
            with Image.open(path) as picture:
                self._writer.add_image(path.stem, np.asarray(picture)[None], step)
        self._writer.flush()
