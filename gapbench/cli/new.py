"""`gapbench new ablation NAME`: a commented file to start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from gapbench.errors import UserError
from gapbench.spec.loading import Document

FOLDER = Path("ablations")
TEMPLATE = "new_ablation.yaml"


def add_to(app: typer.Typer) -> None:
    """Add the group `new`."""
    group = typer.Typer(help="Write a file to start from.", no_args_is_help=True)
    group.command()(ablation)
    group.callback()(_group)
    app.add_typer(group, name="new")


def _group() -> None:
    """Keep `ablation` a separate command; typer would merge a group of one command."""


def ablation(
    name: Annotated[
        str, typer.Argument(help="Name of the ablation: lower-case letters and digits.")
    ],
) -> int:
    """Write a commented ablation file, into ablations/ if this folder exists."""
    from gapbench.spec.schema import AblationSpec, validated

    validated(AblationSpec, Document("name", {"name": name, "question": "?"}, {}))
    path = (FOLDER if FOLDER.is_dir() else Path()) / f"{name}.yaml"
    text = resources.files("gapbench.spec").joinpath(TEMPLATE).read_text("utf-8")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text.format(name=name))
    except FileExistsError:
        raise UserError(f"{path}: exists already: choose another name") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"{path}: run it with `gapbench run {path} --scale smoke`")
    return 0
