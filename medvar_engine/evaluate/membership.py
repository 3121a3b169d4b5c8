"""Membership inference: can one tell from the model's likelihood whether a slice was trained on?

The attack of Yeom et al. (CSF 2018): what a model was trained on surprises it less. Its strength is the area under the
ROC curve: 0.5 is a guess, 1 tells every member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from medvar_engine.errors import MedvarError

RESAMPLES = 1000

Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class MembershipInference:
    """Area under the ROC curve, and the interval that holds it in ``confidence`` of samples of patients."""

    auc: float
    low: float
    high: float
    confidence: float


def membership_inference(
    members: Values,
    others: Values,
    *,
    member_patients: Sequence[str] | None = None,
    other_patients: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> MembershipInference:
    """How well the mean negative log-likelihood of an image's tokens tells members from others.

    Args:
        members: negative log-likelihoods of slices that were trained on, ``(N,)`` an image or ``(N, L)`` a token.
        others: of slices that were not, ``(M,)`` or ``(M, L)``.
        member_patients: whose each slice is. Slices of one person are alike, so that the interval is too narrow when
            they are drawn one by one, as they are without this.
        other_patients: the same of ``others``.
        confidence: of the interval, by the percentile bootstrap.
        seed: of the bootstrap.

    Raises:
        MedvarError: when a group is empty or not finite, or patients are not as many as slices.
    """
    if not 0 < confidence < 1:
        raise MedvarError(f"confidence is a share between 0 and 1, but got {confidence}.")
    inside, outside = _means(members, "members"), _means(others, "others")
    groups = _groups(inside, member_patients), _groups(outside, other_patients)
    rng = np.random.default_rng(seed)
    drawn = [_auc(*(_draw(group, rng) for group in groups)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return MembershipInference(_auc(inside, outside), float(low), float(high), confidence)


def _means(likelihoods: Values, name: str) -> Values:
    values = np.asarray(likelihoods, dtype=np.float64)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise MedvarError(f"{name} are (N,) or (N, tokens) with at least one image, but got {values.shape}.")
    if not np.isfinite(values).all():
        raise MedvarError(f"{name} hold likelihoods that are not finite.")
    return values if values.ndim == 1 else values.mean(axis=1)


def _groups(values: Values, patients: Sequence[str] | None) -> list[Values]:
    """The values of each patient; one by one when nobody says whose they are."""
    if patients is None:
        return list(values[:, None])
    if len(patients) != len(values):
        raise MedvarError(f"There are {len(values)} slices, but {len(patients)} patients are named for them.")
    _, codes = np.unique(list(patients), return_inverse=True)
    return [values[codes == code] for code in range(codes.max() + 1)]


def _draw(groups: list[Values], rng: np.random.Generator) -> Values:
    return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def _auc(inside: Values, outside: Values) -> float:
    """The chance that a member surprises less than another: Mann and Whitney's U, ties counting half."""
    ranks = stats.rankdata(np.concatenate([inside, outside]))
    larger = ranks[len(inside) :].sum() - len(outside) * (len(outside) + 1) / 2
    return float(larger / (len(inside) * len(outside)))
