"""Membership inference: the area under the curve, and an interval that is not narrower than the data allow."""

from __future__ import annotations

import numpy as np
import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.membership import membership_inference


def test_the_area_is_that_of_all_pairs() -> None:
    """Breaks for the report's figure: 0.5 must mean a guess, and ties must count half."""
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 6, 30).astype(float), rng.integers(1, 8, 20).astype(float)
    pairs = (members[:, None] < others).mean() + (members[:, None] == others).mean() / 2
    assert membership_inference(members, others).auc == pytest.approx(pairs)
    assert membership_inference([1.0, 2.0], [3.0, 4.0]).auc == 1
    assert membership_inference([3.0, 4.0], [1.0, 2.0]).auc == 0
    same = membership_inference(members, members)
    assert same.auc == 0.5
    assert same.low < 0.5 < same.high


def test_tokens_are_averaged_over_an_image() -> None:
    """Breaks for likelihoods as the generator gives them, one a token."""
    rng = np.random.default_rng(1)
    members, others = rng.exponential(1.0, (40, 50)), rng.exponential(1.1, (40, 50))
    found = membership_inference(members, others)
    assert found == membership_inference(members.mean(axis=1), others.mean(axis=1))
    assert found.low <= found.auc <= found.high


def test_slices_of_one_patient_are_not_independent() -> None:
    """Breaks for honest intervals: ten alike slices a person are not ten people."""
    rng = np.random.default_rng(2)
    members, others = (np.repeat(rng.normal(0, 1, 12), 10) for _ in range(2))
    names = np.repeat([f"person {i}" for i in range(12)], 10).tolist()
    alone = membership_inference(members, others)
    people = membership_inference(members, others, member_patients=names, other_patients=names)
    assert people.auc == alone.auc
    assert people.high - people.low > 2 * (alone.high - alone.low)
    assert people == membership_inference(members, others, member_patients=names, other_patients=names)


@pytest.mark.parametrize(
    ("members", "options", "says"),
    [
        ([], {}, "at least one image"),
        ([[[1.0]]], {}, "at least one image"),
        ([np.nan], {}, "not finite"),
        ([1.0, 2.0], {"member_patients": ["ann"]}, "1 names of patients"),
        ([1.0], {"confidence": 95}, "confidence"),
    ],
)
def test_meaningless_input_is_refused(members: list[float], options: dict[str, object], says: str) -> None:
    """Breaks for scripts: a number computed from nothing would be believed."""
    with pytest.raises(MedvarError, match=says):
        membership_inference(members, [1.0, 2.0], **options)  # type: ignore[arg-type]
