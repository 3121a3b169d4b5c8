"""Membership inference: does the likelihood of a slice reveal whether the model was trained on it?

This is the attack of Yeom et al. (CSF 2018): training slices have a lower negative log-likelihood. Its strength is the
area under the ROC curve: 0.5 is chance, 1 identifies every training slice.
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
    """Area under the ROC curve, with its confidence interval over patients."""

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
    """How well the mean negative log-likelihood of an image's tokens separates training slices from others.

    Args:
        members: negative log-likelihoods of training slices, ``(N,)`` per image or ``(N, L)`` per token.
        others: those of other slices, ``(M,)`` or ``(M, L)``.
        member_patients: the patient of each slice. Without it, slices are drawn one by one, and the interval is too
        narrow, because slices of one patient are similar.
        other_patients: the same for ``others``.
        confidence: level of the interval, a percentile bootstrap.
        seed: random seed of the bootstrap.

    Raises:
        MedvarError: when a group is empty or has values that are not finite, or when the number of patients is wrong.
    """
    if not 0 < confidence < 1:
        raise MedvarError(f"confidence must be between 0 and 1, but is {confidence}.")
    inside, outside = _means(members, "members"), _means(others, "others")
    groups = _groups(inside, member_patients), _groups(outside, other_patients)
    rng = np.random.default_rng(seed)
    drawn = [_auc(*(_draw(group, rng) for group in groups)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return MembershipInference(_auc(inside, outside), float(low), float(high), confidence)


def _means(likelihoods: Values, name: str) -> Values:
    values = np.asarray(likelihoods, dtype=np.float64)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise MedvarError(f"{name} must be (N,) or (N, tokens) with at least one image, but are {values.shape}.")
    if not np.isfinite(values).all():
        raise MedvarError(f"{name} contain likelihoods that are not finite.")
    return values if values.ndim == 1 else values.mean(axis=1)


def _groups(values: Values, patients: Sequence[str] | None) -> list[Values]:
    """The values of each patient; single values if the patients are unknown."""
    if patients is None:
        return list(values[:, None])
    if len(patients) != len(values):
        raise MedvarError(f"There are {len(values)} slices, but {len(patients)} names of patients.")
    _, codes = np.unique(list(patients), return_inverse=True)
    return [values[codes == code] for code in range(codes.max() + 1)]


def _draw(groups: list[Values], rng: np.random.Generator) -> Values:
    return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def _auc(inside: Values, outside: Values) -> float:
    """The area under the ROC curve, by the Mann-Whitney U statistic; ties count half."""
    ranks = stats.rankdata(np.concatenate([inside, outside]))
    larger = ranks[len(inside) :].sum() - len(outside) * (len(outside) + 1) / 2
    return float(larger / (len(inside) * len(outside)))
