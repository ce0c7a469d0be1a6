"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results")

ScaleOption = Annotated[
    str, typer.Option("--scale", help="One of the ablation's: smoke, mini, small, ...")
]
SeedsOption = Annotated[
    str | None, typer.Option("--seeds", help="6 (that many), 0-4 or 0,3; else the file's.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE, before everything in the file.")
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="Only trials that match: c_gap,rigl or partitions=4,none."),
]
ExecutorOption = Annotated[
    str, typer.Option("--executor", help="auto, local, slurm or debug; auto is slurm on a cluster.")
]
LanesOption = Annotated[
    int | None,
    typer.Option(
        "--lanes",
        min=1,
        help="Trials side by side in one process (executor local): one on the CPU, and on a GPU as "
        "many as fit, by default.",
    ),
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Where runs and reports are kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyArgument = Annotated[
    str, typer.Argument(help="A trial's key, or how it begins: `gapbench status` lists them.")
]
