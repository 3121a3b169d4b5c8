"""The Efficiency of MedVAR (arXiv 2602.14512), which combines quality and speed; lower is better."""

from __future__ import annotations

import math

from medvar_engine.errors import MedvarError


def efficiencies(frechet: float, seconds_an_image: float, gamma: float = 1.0) -> dict[str, float]:
    """``FID · log(1 + P)^γ`` for two interpretations of P, because the paper states neither the unit nor γ.

    ``P`` is the time per image, in seconds or in milliseconds; the logarithm is natural. Only values of the same
    interpretation can be compared. Raises `MedvarError` unless both arguments are finite and not negative.
    """
    if not (0 <= frechet < math.inf and 0 <= seconds_an_image < math.inf):
        given = f"a Fréchet distance of {frechet} and {seconds_an_image} s per image"
        raise MedvarError(f"Efficiency needs values that are finite and not negative, not {given}.")
    return {
        "P in seconds": frechet * math.log1p(seconds_an_image) ** gamma,
        "P in milliseconds": frechet * math.log1p(1000 * seconds_an_image) ** gamma,
    }
