"""Similar codes: the tokens that can replace a token with little change."""

from __future__ import annotations

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.storage import sha256_of
from medvar_engine.types import FloatArray, IntArray


def codes_of_scale(codebook: FloatArray, k: int) -> FloatArray:
    """The codes ``(V, C)`` of scale k, from a codebook ``(V, C)`` of all scales or ``(K, V, C)`` per scale."""
    return codebook[k] if codebook.ndim == 3 else codebook


def nearest_codes(codebook: FloatArray, token: int, n: int) -> tuple[IntArray, FloatArray]:
    """The ``n`` codes nearest to ``token``, itself first: tokens ``(n,)`` and increasing Euclidean distances ``(n,)``.

    ``codebook`` is ``(V, C)``. If the vocabulary is smaller than ``n``, all codes are returned.
    """
    if not 0 <= token < len(codebook):
        raise MedvarError(f"Tokens must be within 0…{len(codebook) - 1}, but got {token}.")
    if n < 1:
        raise MedvarError(f"The number of codes must be 1 or more, but is {n}.")
    distances = np.linalg.norm(codebook - codebook[token], axis=1).astype(np.float32)
    order = np.argsort(distances, kind="stable")
    tokens = np.concatenate([[token], order[order != token]])[:n].astype(
        np.int64
    )  # itself first, also before identical codes
    return tokens, distances[tokens]


def codebook_digest(codebook: FloatArray) -> str:
    """sha256 of a codebook ``(V, C)`` or ``(K, V, C)``; storing it in half precision does not change it."""
    return sha256_of(np.ascontiguousarray(codebook, dtype="<f2").tobytes())
