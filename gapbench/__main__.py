"""The command line: `gapbench ...` and `python -m gapbench ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

try:
    import typer

    from gapbench.cli import commands, new, reproduce, run, status
    from gapbench.cli.guard import guarded
except ModuleNotFoundError as missing:
    words = f"the commands need {missing.name}: pip install 'gapbench[suite]'"
    print(f"gapbench: {words}", file=sys.stderr)
    sys.exit(2)

app = typer.Typer(
    help="A reproducible benchmark of grow-and-prune sparse training, RigL and other baselines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (run, status, reproduce, new, commands):
    module.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: all is done; 1: a trial failed; 2: bad input; 130: the user interrupted the command.
    """
    return guarded(app, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
