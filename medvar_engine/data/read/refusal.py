"""`Refusal`: a file or series that was not used, with the reason. All others are used."""

from __future__ import annotations

from dataclasses import dataclass

from medvar_engine.errors import MedvarError

MADE_BY_A_MODEL = "made by a generative model; use it with medvar prepare --include-synthetic"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file or series that was not used, and the reason."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def reason_of(error: Exception) -> str:
    """The reason of a refusal. Unexpected exceptions are reported with their type, because no file may end a run."""
    if isinstance(error, MedvarError):
        return str(error)
    return f"it cannot be read, and may be damaged ({type(error).__name__}: {error})"
