"""Writes ``docs/reference/command-line.md``: every verb of ``medvar``, with all its options.

Run ``python docs/cli.py`` after every change of an option.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from medvar_engine.cli.main import app

PAGE = Path(__file__).parent / "reference" / "command-line.md"
_HEAD = """# The command line

*For people who look up an option. `medvar VERB --help` shows the same.*

Exit codes: 0 success; 1 an error that you can correct, as the message explains; 2 a wrong call; 75 training was stopped
by a signal and can be resumed; 130 Ctrl-C; 70 an unexpected error, described in one sentence. `--debug`, anywhere in
the call, prints the traceback for a report.
"""


def page() -> str:
    """The page. It does not depend on the machine or the width of its screen."""
    command = typer.main.get_command(app)
    return "\n".join([_HEAD, *_verbs(command, "medvar")])


def _verbs(command: Any, name: str) -> Iterator[str]:
    """A section for each verb below ``command``. Typer carries a click of its own, which has no public types."""
    for verb, below in command.commands.items():
        if hasattr(below, "commands"):
            yield from _verbs(below, f"{name} {verb}")
        else:
            yield from _section(below, f"{name} {verb}")


def _section(command: Any, name: str) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"## `{name}`\n\n```text\n{usage}\n```\n\n{_text(inspect.cleandoc(command.help or ''))}\n"
    rows = [parameter.get_help_record(context) for parameter in command.params]
    if rows := [row for row in rows if row is not None]:
        yield "| | |\n|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(_text(meaning))} |" for names, meaning in rows)
        yield ""


def _text(words: str) -> str:
    """Paragraphs as they are, without the marks that only a terminal's help knows."""
    return "\n\n".join(" ".join(part.split()) for part in words.replace("\b", "").split("\n\n"))


def _cell(words: str) -> str:
    """What a table takes: no bar may end a cell, and no ``<`` begin a tag."""
    return re.sub(r"\s+", " ", words).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
