"""The metrics of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric


class TensorBoardLog:
    """Writes metrics and sample grids for TensorBoard (``tensorboard --logdir FOLDER``)."""

    def __init__(self, folder: Path, start: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MedvarError(
                "tensorboard=true needs TensorBoard, which is not installed: pip install tensorboard"
            ) from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=start + 1)

    def write(self, step: int, metrics: Mapping[Metric, float]) -> None:
        """Add the value of each metric to its curve."""
        for metric, value in metrics.items():
            self._writer.add_scalar(str(metric), value, step)
        self._writer.flush()

    def show(self, step: int, samples: Path) -> None:
        """Add the PNG files of a folder."""
        for path in sorted(samples.glob("*.png")):
            with Image.open(path) as image:
                self._writer.add_image(path.stem, np.asarray(image)[None], step)
        self._writer.flush()
