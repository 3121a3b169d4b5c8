"""Messages of which some tokens are skipped: what is no part of a scale is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medvar_engine.backends.messages import pack

pytest.importorskip("medvar_engine.serve.run")


def of_places(*scales: list[float]) -> dict[str, Any]:
    """Features of the tiny model, whose last channel are these places."""
    features = np.zeros((1, sum(map(len, scales)), 5), dtype=np.float32)
    features[0, :, 4] = np.concatenate(scales)
    return {"labels": np.zeros((1, 3), dtype=np.int64), "features": features}


WHOLE = [0.0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tokens", "arrays", "said"),
    [
        (7, of_places(WHOLE), "'tokens' is how many"),
        ([], of_places(WHOLE), "'tokens' is how many"),
        ([4, -1], of_places(WHOLE), "'tokens' is how many"),
        ([True], of_places([0]), "'tokens' is how many"),
        ([5], of_places([0, 1, 2, 3, 4]), "'tokens' is how many"),
        ([4, 9, 16, 1], of_places(WHOLE), "'tokens' is how many"),
        ([4, 4], of_places(WHOLE), "must be float32 of 1 × 8 × 5"),
        ([4], of_places([0, 1, 2, 4]), "in rising order"),
        ([4], of_places([0, 1, 1, 2]), "in rising order"),
        ([4], of_places([0, 2, 1, 3]), "in rising order"),
        ([2], of_places([-1, 0]), "in rising order"),
        ([2], of_places([0, 1.5]), "in rising order"),
    ],
)
def test_odd_places_are_refused(
    tokens: Any, arrays: dict[str, Any], said: str, served: Callable[..., str], ask: Callable[..., Any]
) -> None:
    """A stranger could make the server read beyond its tables, or have a bug told to everybody."""
    for path in ("step", "summary"):
        answer = ask(served(), f"/{path}", pack({"tokens": tokens}, arrays))
        assert answer.status == 400
        assert said in answer.error
