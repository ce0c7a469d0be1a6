"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results")

ScaleOption = Annotated[
    str, typer.Option("--scale", help="A scale of the ablation: smoke, mini, small, ...")
]
SeedsOption = Annotated[
    str | None,
    typer.Option("--seeds", help="A count (6), range (0-4) or list (0,3); else the file's."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE; overrides the file.")
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
        help="Trials side by side in one process (executor local); by default one on a CPU, and as "
        "many as fit on a GPU.",
    ),
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of runs and reports.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyArgument = Annotated[
    str,
    typer.Argument(help="A trial's key, or its first letters; `gapbench status` lists keys."),
]
