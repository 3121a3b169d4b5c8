from __future__ import annotations

import numpy as np
import pytest

from medvar_engine.evaluate.recognition import Side, measure_recognition

CLASSES = ("brain axial", "chest axial", "spine sagittal")


def side(names: list[str | None], shown: list[int], spread: float = 0.1) -> Side:
    """Features of what images show: one number a class, and noise."""
    rng = np.random.default_rng(len(names))
    features = np.eye(3)[shown] + spread * rng.standard_normal((len(names), 3))
    return Side(features.astype(np.float32), names, [str(i // 4) for i in range(len(names))])


def test_recognition_is_the_share_of_correct_images() -> None:
    """A model that draws chests when asked for brains would pass."""
    numbers = [i % 3 for i in range(60)]
    training = side([*(CLASSES[i] for i in numbers), None], [*numbers, 0])
    held_out = side([CLASSES[i] for i in numbers[:24]], numbers[:24])
    asked = [CLASSES[0]] * 10 + [CLASSES[1]] * 10 + [None] * 4
    found = measure_recognition(training, held_out, side(asked, [0] * 10 + [1] * 5 + [2] * 5 + [0] * 4))
    assert found is not None
    assert found.classes == CLASSES
    assert found.synthetic.value == pytest.approx(0.75)
    assert found.held_out.value == 1.0
    assert found.by_class == {CLASSES[0]: (1.0, 1.0), CLASSES[1]: (0.5, 1.0), CLASSES[2]: (None, 1.0)}


def test_recognition_needs_two_classes() -> None:
    """A single class is always recognised."""
    one = side([CLASSES[0]] * 8, [0] * 8)
    assert measure_recognition(one, one, one) is None
    both = side([CLASSES[0], CLASSES[1]] * 8, [0, 1] * 8)
    assert measure_recognition(both, both, side([None] * 4, [0] * 4)) is None
