"""The one exception that reaches a person."""


class MedvarError(Exception):
    """Something a user can put right.

    The message says what was wrong, where (file, tag, argument), what was expected, and what to do.
    The command line and the widget show it as it stands; anything else is a bug and shows a traceback.
    """
