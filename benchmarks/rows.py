"""Rows of the one table that every benchmark adds to, and the command line that all share.

A benchmark is a module of this folder with one function:

    def rows(quick: bool) -> list[Row]

which measures and returns its rows in the order they shall be read; `quick` asks for sizes so small
that a test ends in seconds, whatever the figures are then worth. Its last lines are

    if __name__ == "__main__":
        main(__doc__, rows)

so that `python -m benchmarks.<module> [--quick] [--json FILE]` prints its part of the table.
`python -m benchmarks` (`make bench`) runs the modules named in benchmarks/__main__.py.

A row compares one figure of gapbench, `ours`, with one `reference` in the same unit (dense
training, a plain `topk`, a bound), or, without a reference, states the figure alone. `ratio` is
ours over the reference: the median of the ratios of paired measurements where times are compared
(`paired` below), not the ratio of two medians. `limit` bounds `ratio` where there is one, else
`ours`: from above, or from below with `at_least`. Packages that do the same work are `peers`: their
figure in the same unit, and its ratio to the same reference. A row that could not be measured has
`ours=None` and says why in `note`; a control row (A/A) has no limit, and its ratio shows what noise
there was.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Peer:
    """What another package needs for the same work: a figure in the row's unit, or why none."""

    name: str
    value: float | None
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table; see the head of this module for what its fields mean."""

    what: str
    ours: float | None
    unit: str
    reference: str = ""
    reference_value: float | None = None
    ratio: float | None = None
    limit: float | None = None
    at_least: bool = False
    peers: tuple[Peer, ...] = ()
    below_peers: bool = False  # reached only if every measured peer's ratio is larger
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Return whether the limit is kept; None where there is nothing to keep or no figure."""
        figure = self.ours if self.ratio is None else self.ratio
        if figure is None or (self.limit is None and not self.below_peers):
            return None
        if self.limit is not None and (
            figure < self.limit if self.at_least else figure > self.limit
        ):
            return False
        ratios = [peer.ratio for peer in self.peers if peer.ratio is not None]
        return not self.below_peers or all(figure < ratio for ratio in ratios)


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return seconds of every call of each way, one call each in turn, `rounds` times over.

    The order turns round by round, so that none always runs behind the same neighbour; `warm`
    rounds before are not counted. Ways that keep to this process's one thread may be measured by
    `time.process_time`, to which other work on the machine matters less.
    """
    names = list(ways)
    seen: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began = clock()
            ways[name]()
            if number >= 0:
                seen[name].append(clock() - began)
    return seen


def paired(ours: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median of the ratios of measurements made side by side."""
    return statistics.median(one / other for one, other in zip(ours, reference, strict=True))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns."""
    head = ["what", "ours", "reference", "peers", "ratio", "limit", "reached", "note"]
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def tell(head: Sequence[str], lines: Sequence[Sequence[str]], page: Path | None = None) -> None:
    """Print a Markdown table of cells, and write it to `page`, too."""
    rows = [head, ["---"] * len(head), *lines]
    text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    if page is not None:
        page.write_text(text, encoding="utf-8")
    print(text)


def _cells(row: Row) -> list[str]:
    reference = row.reference
    if row.reference_value is not None:
        reference += f" {_figure(row.reference_value)} {row.unit}"
    limit = ""
    if row.limit is not None:
        unit = "" if row.ratio is not None or row.reference else f" {row.unit}"
        limit = ("≥ " if row.at_least else "≤ ") + _figure(row.limit) + unit
    if row.below_peers:
        limit += ", " * bool(limit) + "< peers"
    return [
        row.what,
        "not measured" if row.ours is None else f"{_figure(row.ours)} {row.unit}",
        reference,
        "; ".join(_peer(peer, row.unit) for peer in row.peers),
        "" if row.ratio is None else f"{row.ratio:.3f}",
        limit,
        {True: "yes", False: "no", None: ""}[row.reached],
        row.note,
    ]


def _peer(peer: Peer, unit: str) -> str:
    if peer.value is None:
        return f"{peer.name}: {peer.note}"
    ratio = "" if peer.ratio is None else f" ({peer.ratio:.3f})"
    return f"{peer.name} {_figure(peer.value)} {unit}{ratio}"


def _figure(value: float) -> str:
    """Return four significant digits, without exponents for what people read."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dump(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain data, `reached` included."""
    return [{**asdict(row), "reached": row.reached} for row in rows]


def load(data: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows that `dump` made plain."""
    found = []
    for line in data:
        fields = {name: value for name, value in line.items() if name != "reached"}
        peers = tuple(Peer(**peer) for peer in fields.pop("peers"))
        found.append(Row(**fields, peers=peers))
    return found


def main(description: str | None, rows: Callable[[bool], list[Row]]) -> None:
    """Measure one benchmark, print its part of the table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    found = rows(given.quick)
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(dump(found), indent=1) + "\n", encoding="utf-8")
