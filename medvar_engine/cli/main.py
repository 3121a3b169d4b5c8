"""``medvar``: one file per command. Large libraries are imported only when a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import typer

import medvar_engine
from medvar_engine.cli.console import print_error, print_message
from medvar_engine.cli.data_command import app as data
from medvar_engine.cli.encode_command import encode
from medvar_engine.cli.evaluate_command import evaluate
from medvar_engine.cli.export_command import export
from medvar_engine.cli.features_command import features
from medvar_engine.cli.finetune_command import finetune
from medvar_engine.cli.gate_command import gate
from medvar_engine.cli.generate_command import generate
from medvar_engine.cli.import_var_command import import_var
from medvar_engine.cli.info_command import info
from medvar_engine.cli.prepare_command import prepare
from medvar_engine.cli.preview_command import preview
from medvar_engine.cli.replay_command import replay
from medvar_engine.cli.serve_command import serve
from medvar_engine.errors import MedvarError, unforeseen
from medvar_engine.train.train_command import train

app = typer.Typer(
    name="medvar",
    help="Synthetic CT and MR slices by next-scale prediction: prepare, train, finetune, export, generate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    prepare,
    encode,
    train,
    finetune,
    export,
    gate,
    preview,
    generate,
    features,
    info,
    replay,
    serve,
    import_var,
):
    app.command()(verb)
app.add_typer(data)
app.add_typer(evaluate)


_INTERRUPTED = 130
_UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h
_DEBUG = "--debug"
# Wrong arguments. Typer carries a copy of click, or in older versions uses click, and names this class in neither.
_WrongCall: type[typer.BadParameter] = typer.BadParameter.__mro__[1]


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    debug: bool = typer.Option(False, _DEBUG, help="Print the traceback of an error, for a report."),
) -> None:
    if version:
        typer.echo(medvar_engine.__version__)
        raise typer.Exit


def main() -> None:
    """Entry point. Exit code: 0 on success, 1 after a user's error, 2 for wrong arguments, 130 after Ctrl-C.

    An unexpected error is reported in one sentence, with exit code 70; ``--debug``, anywhere in the call, prints the
    traceback too.
    """
    sys.exit(guarded(lambda given: app(given, prog_name="medvar", standalone_mode=False)))


def guarded(run: Callable[[list[str]], object]) -> int:
    """The exit code of ``run`` for the arguments of the command line. Every failure is reported in plain text."""
    given = [one for one in sys.argv[1:] if one != _DEBUG]
    debug = len(given) < len(sys.argv) - 1
    try:
        code = run(given)
    except SystemExit as error:
        code = error.code
    except MedvarError as error:
        code = _failed(str(error), debug)
    except _WrongCall as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except (MemoryError, OSError) as error:
        code = _failed(
            f"The system refused: {error}. Free some memory or disk, or check the path, and try again.", debug
        )
    except BaseException as error:  # panics of libraries written in Rust are no `Exception`
        code = _failed(unforeseen(error), debug, _UNFORESEEN)
    if code == _INTERRUPTED:  # newer versions of Typer return it
        print_error("Interrupted; nothing was left half-written.")
    return code if isinstance(code, int) else 0 if code is None else 1


def _failed(message: str, debug: bool, code: int = 1) -> int:
    if debug:
        print_message(traceback.format_exc())
    print_error(message)
    return code
