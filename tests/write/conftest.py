from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medvar_engine.generate.trace import Trace
from medvar_engine.write.output_image import OutputImage


@pytest.fixture
def make_output_image(make_trace: Callable[..., Trace]) -> Callable[..., OutputImage]:
    """CT images of 6 rows and 4 columns, -1000…400 HU at 0.75 mm; keywords change them."""

    def make(**changes: object) -> OutputImage:
        values: dict[str, object] = {
            "pixels": np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4),
            "trace": make_trace(),
            "spacing_mm": 0.75,
            "low": -1000.0,
            "high": 400.0,
            "unit": "HU",
        }
        return OutputImage(**(values | changes))  # type: ignore[arg-type]

    return make
