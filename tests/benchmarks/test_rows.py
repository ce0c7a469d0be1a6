from __future__ import annotations

import pytest

from benchmarks.rows import Peer, Row, dump, interleaved, paired, table


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("a", 1.0, "s", "b", 1.0, ratio=1.01, limit=1.015), True),
        (Row("a", 1.0, "s", "b", 1.0, ratio=1.02, limit=1.015), False),
        (Row("a", 14.0, "s", limit=15), True),
        (Row("a", 1.7, "times", limit=1.8, at_least=True), False),
        (Row("a", None, "s", limit=15, note="no SLURM here"), None),
        (Row("a", 1.0, "s"), None),
        (Row("a", 1.0, "s", ratio=1.01, below_peers=True, peers=(Peer("p", 1.0, 1.005),)), False),
        (Row("a", 1.0, "s", ratio=1.01, below_peers=True, peers=(Peer("p", None),)), True),
    ],
)
def test_a_row_knows_whether_its_limit_is_kept(row: Row, reached: bool | None) -> None:
    assert row.reached is reached


def test_pairs_are_compared_before_the_median_is_taken() -> None:
    assert paired([1.0, 20.0, 3.0], [1.0, 10.0, 3.0]) == 1.0
    with pytest.raises(ValueError, match="zip"):
        paired([1.0], [1.0, 2.0])


def test_ways_take_turns_and_warming_up_is_not_counted() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "abc"}
    seen = interleaved(ways, rounds=2)
    assert "".join(order) == "cab" + "abc" + "bca"
    assert {len(times) for times in seen.values()} == {2}


def test_the_table_shows_figures_peers_and_verdicts() -> None:
    rows = [
        Row("step", 12.345, "ms", "dense", 12.2, 1.0119, 1.015, peers=(Peer("other", 13, 1.07),)),
        Row("status", 4.0, "s", limit=5),
        Row("submit", None, "s", limit=10, note="no SLURM here"),
    ]
    step, status, submit = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table(rows).splitlines()[2:]
    )
    assert step == [
        "step", "12.35 ms", "dense 12.2 ms", "other 13 ms (1.070)", "1.012", "≤ 1.015", "yes", "",
    ]  # fmt: skip
    assert status[5:7] == ["≤ 5 s", "yes"]
    assert submit[1] == "not measured" and submit[6:] == ["", "no SLURM here"]
    assert dump(rows)[0]["reached"] is True
