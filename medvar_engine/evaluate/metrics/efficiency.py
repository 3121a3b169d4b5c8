"""The paper's Efficiency (MedVAR, arXiv 2602.14512): quality and speed in one figure; the lower, the better."""

from __future__ import annotations

import math

from medvar_engine.errors import MedvarError


def efficiencies(frechet: float, seconds_an_image: float, gamma: float = 1.0) -> dict[str, float]:
    """``FID · log(1 + P)^γ`` by how its P may be meant, for the paper says neither the unit nor γ.

    ``P`` is the time to make one image, here once in seconds and once in milliseconds; the logarithm is natural. Only
    figures of the same reading can be compared. Raises `MedvarError` unless both are finite and not negative.
    """
    if not (0 <= frechet < math.inf and 0 <= seconds_an_image < math.inf):
        told = f"a Fréchet distance of {frechet} and {seconds_an_image} s an image"
        raise MedvarError(f"Efficiency is of figures that are finite and not negative, not of {told}.")
    return {
        "P in seconds": frechet * math.log1p(seconds_an_image) ** gamma,
        "P in milliseconds": frechet * math.log1p(1000 * seconds_an_image) ** gamma,
    }
