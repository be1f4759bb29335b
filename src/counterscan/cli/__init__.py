"""The command line: thin. Every module here parses, calls the public API and prints."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from counterscan.cli import data, evaluate, models
from counterscan.cli.attribute import attribute
from counterscan.cli.batch import batch
from counterscan.cli.bench import bench
from counterscan.cli.demo import demo
from counterscan.cli.doctor import doctor
from counterscan.cli.edit import edit
from counterscan.cli.generate import generate
from counterscan.cli.reader import reader
from counterscan.cli.robustness import augment, disentangle, stress, train_classifier
from counterscan.cli.studio import studio
from counterscan.cli.train import train

STOPPED = 130  # what shells call a program that Ctrl-C ended

app = typer.Typer(
    name="counterscan",
    help="Ask a medical image what if, in words. Results are synthetic and not for diagnosis.",
    epilog="Start with: counterscan demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (demo, generate, edit, batch, attribute, bench, stress, disentangle, augment, train_classifier, doctor):
    app.command()(command)
app.command()(studio)
app.command()(reader)
app.command()(train)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(evaluate.app, name="evaluate")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, for bug reports.")] = False,
) -> None:
    if version:
        from counterscan import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the words are wrong. An error is one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in words:  # wherever it stands: people put it behind the line that failed
        words = [word for word in words if word != "--debug"]
        logging.basicConfig(stream=sys.stderr)
        logging.getLogger("counterscan").setLevel(logging.DEBUG)
    # the process ends and all its memory with it: to look for garbage among a million imported objects takes a second
    atexit.register(gc.freeze)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    from counterscan.cli.output import complain, explain
    from counterscan.errors import CounterscanError

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
        try:
            code = app(words, prog_name="counterscan", standalone_mode=False, obj=words) or 0
            if code == STOPPED:  # typer has already turned Ctrl-C into this code
                complain("stopped")
            return code
        except CounterscanError as error:
            complain(explain(error))
            return error.exit_code
        except (KeyboardInterrupt, typer.Abort):
            complain("stopped")
            return STOPPED
        except Exception as error:
            if hasattr(error, "format_message"):  # how typer says that the words are wrong
                return _misused(error)
            complain(explain(error))
            return 1


def _misused(error: Exception) -> int:
    """Typer's usage error in one line, with the way to the help of the command that was meant."""
    from counterscan.cli.output import complain

    context = getattr(error, "ctx", None)
    message = error.format_message()  # type: ignore[attr-defined]
    if message and type(error).__name__ != "NoArgsIsHelpError":  # without any words the help has been shown instead
        complain(f"{message.rstrip('.')}; see {context.command_path if context else 'counterscan'} --help")
    return 2
