"""Selection of a command's trials: all or some trials of an ablation at a scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gapbench.spec.ablation import Ablation
    from gapbench.spec.grid import Entry


def expanded(
    file: Path,
    scale: str,
    set_: Sequence[str],
    only: Sequence[str],
    seeds: str | Sequence[int] | None,
) -> tuple[Ablation, str, list[Entry]]:
    """Read an ablation and return it with its scale and trials, as `grid.expand` does.

    Args:
        file: the ablation file.
        scale: name of the scale.
        set_: `KEY=VALUE` settings, as for `--set`.
        only: patterns, as for `--only`.
        seeds: text as for `--seeds`, or the seeds themselves.

    Raises:
        UserError: if the file or an argument is invalid.
    """
    from gapbench.spec.ablation import read
    from gapbench.spec.grid import expand, scale_of
    from gapbench.spec.loading import read_seeds, read_set

    ablation = read(file)
    found = scale_of(ablation, scale)
    entries = expand(
        ablation,
        found,
        overrides=read_set(set_) if set_ else None,
        only=only,
        seeds=read_seeds(seeds) if isinstance(seeds, str) else seeds,
    )
    return ablation, found, entries
