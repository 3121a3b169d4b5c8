"""Percentiles found by counting are those found by sorting."""

from __future__ import annotations

import numpy as np
import pytest

from medvar_engine.data.harmonise.percentiles import RankedValues

GENERATOR = np.random.default_rng(0)
VALUES = {
    "signal": GENERATOR.gamma(2, 100, (20, 30, 40)),
    "whole numbers": GENERATOR.integers(-3, 900, (40, 30, 20)),
    "two values": GENERATOR.integers(0, 2, (9, 9, 9)),
    "one value": np.full((3, 3, 3), 7),
    "one voxel": np.zeros((1, 1, 1)),
    "an outlier": np.append(GENERATOR.normal(0, 1, 5000), 1e9),
    "far from 0": 1e7 + GENERATOR.integers(0, 40, 1000),
    "nearly no range": np.asarray([0, 1e-45, 3e-45]),
    "more than the range of float32": GENERATOR.uniform(-3e38, 3e38, 1000),
    "whole numbers but the lowest": np.concatenate(([4], np.ones(1 << 17), [0.5])),
    "whole numbers but the highest": np.concatenate(([-1.0], np.ones(1 << 17), [3.5])),
    "more than a piece": GENERATOR.normal(0, 1, 200_000),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_percentiles_equal_those_of_numpy(values: np.ndarray) -> None:
    """Breaks for MR: black and white would depend on how values are spread, or be those of another scan."""
    for layout in (values.astype(np.float32), values.astype(np.float32).T):
        ranked = RankedValues(layout)
        exact = np.sort(layout.astype(np.float64), axis=None)
        middle = float(exact[len(exact) // 3])
        above = exact[exact > middle]
        assert ranked.count_above(middle) == above.size
        for percent in (0, 0.5, 37.123, 50, 99, 99.5, 100):
            assert ranked.percentile(percent) == pytest.approx(np.percentile(exact, percent), rel=1e-12)
            if above.size:
                found = ranked.percentile(percent, of=above.size)
                assert found == pytest.approx(np.percentile(above, percent), rel=1e-12)
