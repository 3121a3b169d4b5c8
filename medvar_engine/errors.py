"""`MedvarError`, the exception for users, and the message for unexpected exceptions."""

from __future__ import annotations

import traceback
from pathlib import Path

import medvar_engine


class MedvarError(Exception):
    """An error that a user can correct.

    The message says what was wrong, where (file, tag, argument), what was expected, and what to do. The command line
    and the widget show it without a traceback. Any other exception is a bug; see `unforeseen`.
    """


def unforeseen(error: BaseException) -> str:
    """The message for an unexpected exception, with type, text and place, and how to report it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"An unexpected error occurred in medvar {medvar_engine.__version__}: {what[:500]}{where}. Run the command "
        "again with --debug, and report the output, without names of patients, in the issue tracker of the project."
    )
