"""`screen`: decides which images are withheld or flagged as possible copies of training slices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.copy_risk import CopyPolicy, CopyRisk
from medvar_engine.memorisation.gate import Gate
from medvar_engine.memorisation.training_index import GATE, read_index
from medvar_engine.types import FloatArray


@dataclass(frozen=True, slots=True)
class CopyScreen:
    """A copy policy and its gate; None without a search for copies."""

    policy: CopyPolicy
    gate: Gate | None

    @classmethod
    def of(cls, bundle: Bundle, policy: CopyPolicy | None = None) -> CopyScreen:
        """The screen for images of ``bundle``; see `copy_policy` for the default and the error."""
        known = copy_policy(bundle, policy)
        return cls(known, None if known == "off" else read_index(bundle.read))


@dataclass(frozen=True, slots=True)
class Screened:
    """The result of a policy for M images. Tuples hold indices in the order of the images."""

    policy: CopyPolicy
    risks: tuple[CopyRisk | None, ...]  # (M,); None without a search for copies
    owned: frozenset[int] = frozenset()  # images made from a real image that the user has declared as their own

    @property
    def flagged(self) -> tuple[int, ...]:
        """The indices of possible copies."""
        return tuple(i for i, risk in enumerate(self.risks) if risk is not None and risk.flagged)

    @property
    def withheld(self) -> tuple[int, ...]:
        """The indices of images that must not be written or sent."""
        return tuple(i for i in self.flagged if i not in self.owned) if self.policy == "withhold" else ()

    @property
    def kept(self) -> tuple[int, ...]:
        """The indices of all other images."""
        return tuple(i for i in range(len(self.risks)) if i not in self.withheld)


def screen(images: Iterable[FloatArray], copies: CopyScreen, owned: Iterable[int] = ()) -> Screened:
    """Check images ``(H, W)`` in [-1, 1] for copies of training slices.

    Each image is checked separately, so the result does not depend on the batch. ``owned`` are the indices of images
    that were made from a real image that the user has declared as their own: these are never withheld.
    """
    gate = copies.gate
    risks = tuple(None if gate is None else gate.risk(image) for image in images)
    return Screened(copies.policy, risks, frozenset(owned))


def copy_policy(bundle: Bundle, policy: CopyPolicy | None = None) -> CopyPolicy:
    """The requested policy; by default copies are withheld if the bundle has a training index.

    Raises:
        MedvarError: when images are to be withheld or flagged, but the bundle has no training index.
    """
    if policy is None:
        return "withhold" if GATE in bundle.sha256 else "off"
    if policy == "off" or GATE in bundle.sha256:
        return policy
    raise MedvarError(
        f"{bundle.name} has no training index, so copies of its training slices cannot be found. The owner of these "
        "slices can add one: `medvar gate BUNDLE --data SLICES`."
    )
