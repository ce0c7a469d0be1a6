"""Error handling of commands: one line for bad input, lost output and interrupts; exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

import typer
from typer import TyperException

from gapbench.cli import terminal
from gapbench.errors import UserError

MOST_SHOWN = 200  # characters of a path in an error


def guarded(command: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command, print one line about bad input or lost output, and return the exit code."""
    if sys.stdout is None:
        return _refused("standard output is closed: send it to a file, or to /dev/null", 2)
    with terminal.guarded_streams() as outputs:
        code = _code_of(command, arguments)
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        lost = next((output.lost for output in outputs if output.lost), None)
        if lost is not None:
            _refused(f"not all could be printed: {lost.strerror}", 1)
            code = code or 1
    try:
        sys.stdout.flush()
    except OSError:
        terminal.abandon(sys.stdout)
    return code


def _code_of(command: typer.Typer, arguments: Sequence[str]) -> int:
    try:
        code = typer.main.get_command(command).main(
            list(arguments), prog_name="gapbench", standalone_mode=False
        )
    except UserError as error:
        return _refused(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _refused("interrupted; run the same command again to go on", 130)
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except OSError as error:
        if error.filename is None:
            raise
        name = str(error.filename)  # of a path that no system takes, such as one that is too long
        shown = name if len(name) <= MOST_SHOWN else f"{name[:MOST_SHOWN]}..."
        return _refused(f"{shown}: {error.strerror}", 2)
    except TyperException as error:
        message = error.format_message()
        context = getattr(error, "ctx", None)
        if context and message.strip() and not message.endswith("?"):  # Did you mean 'run'?
            message = f"{message.rstrip('.')}: `{context.command_path} --help` lists the options"
        return _refused(message, 2) if message.strip() else 2  # help was printed instead
    return code if isinstance(code, int) else 0


def _refused(message: str, code: int) -> int:
    print(f"gapbench: {' '.join(message.split())}", file=sys.stderr)
    return code
