"""The command line: thin. Every module here parses, calls the public API and prints."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from counterscan.cli import data, models
from counterscan.cli.attribute import attribute
from counterscan.cli.demo import demo
from counterscan.cli.doctor import doctor
from counterscan.cli.edit import edit
from counterscan.cli.generate import generate

app = typer.Typer(
    name="counterscan",
    help="Ask a medical image what if, in words. Results are synthetic and not for diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (demo, generate, edit, attribute, doctor):
    app.command()(command)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from counterscan import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; errors we raise on purpose become one line and their exit code."""
    from counterscan.cli.output import complain
    from counterscan.errors import CounterscanError

    warnings.showwarning = lambda message, *_: complain(f"warning: {message}")
    try:
        app()
    except CounterscanError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("stopped")
        sys.exit(130)
