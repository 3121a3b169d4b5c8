"""The one exception that reaches a person, and what is said of any other."""

from __future__ import annotations

import traceback
from pathlib import Path

import medvar_engine


class MedvarError(Exception):
    """Something a user can put right.

    The message says what was wrong, where (file, tag, argument), what was expected, and what to do.
    The command line and the widget show it as it stands; anything else is a bug: `unforeseen` says so.
    """


def unforeseen(error: BaseException) -> str:
    """What to say of an error that nothing was prepared for."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"Something that medvar {medvar_engine.__version__} does not foresee went wrong: {what[:500]}{where}. Run the "
        "same with --debug, and report what it prints, without names of patients, in the issue tracker of the project."
    )
