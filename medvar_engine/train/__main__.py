"""``python -m medvar_engine.train CONFIG [name=value …] [--resume]``."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.markup import escape

from medvar_engine.errors import MedvarError
from medvar_engine.train.config import config_from_arguments
from medvar_engine.train.stopping import EXIT_STOPPED, StoppedEarly

_WHAT = "Train the tokenizer or the transformer on prepared slices."


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _above_0(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError("above 0")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Train one stage.

    The exit code is 0 when the run has finished, 1 for a user's error, 75 when it was stopped by a signal and saved,
    130 when it was interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m medvar_engine.train", description=_WHAT)
    help_text = "a .toml or .yaml file with settings, and settings that override the file's"
    parser.add_argument("config", nargs="*", metavar="CONFIG name=value", help=help_text)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in out/")
    parser.add_argument("--dry-run", action="store_true", help="only say what the run would cost")
    parser.add_argument("--tflops", type=_above_0, help="with --dry-run: what the machine reaches, for the hours")
    parser.add_argument("--processes", type=_positive, default=1, help="with --dry-run: how many will train together")
    parsed = parser.parse_intermixed_args(arguments)
    console = Console(stderr=True)
    try:
        from medvar_engine.train.run import run
    except ImportError as error:
        message = f"Training needs {error.name}, which is not installed: pip install 'napari-medvar[train]'"
        console.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
        return 1
    try:
        config = config_from_arguments(parsed.config)
        if parsed.dry_run:
            from medvar_engine.train.plan import plan

            print(plan(config, parsed.processes).told(parsed.tflops))
        else:
            print(run(config, resume=parsed.resume, console=console))
    except MedvarError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    except StoppedEarly as stopped:
        console.print(str(stopped), highlight=False, soft_wrap=True)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        console.print("Interrupted. Go on from the last checkpoint with --resume.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
