"""What a mask change of a whole model costs: gapbench, rigl-torch, and plain selections.

    python -m benchmarks.mask_change [--quick] [--json FILE]

A change is all that happens between two training steps: kept counts, selection, new masks, weights
and momentum outside them cleared, and the run's record of costs, overlap and explored weights. The
reference is one pass of `torch.topk` over the absolute values of the same layers, one at a time,
for the tenth that is kept; "A/A" is a second such pass. rigl-torch has updates only, and a prune is
set beside one. The bound is what memory allows: the bytes that a change has to read and to write,
at the speed of copying the weights in the same run. All take turns on one thread, and processor
time counts; what restores the model between is not counted.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping

from benchmarks.events import DISTRIBUTIONS, SIZES, Event, Subject
from benchmarks.peak_memory import peaks
from benchmarks.peers import NotInstalled
from benchmarks.rows import Peer, Row, main, paired
from benchmarks.step_overhead import one_thread

LIMIT, PEER_LIMIT = 2.0, 0.1
PRUNES = tuple(f"prune, {name}" for name in DISTRIBUTIONS)
RIGL, PEER = "RigL update", "rigl-torch"
BESIDE_PEER = (RIGL, PRUNES[0])
# a weight: read 4, written 4; momentum likewise; its mask written 1. RigL also reads 4 of the
# gradient and 1 of the old mask
BYTES = {**dict.fromkeys(PRUNES, 17), RIGL: 22}
COPIED = 8  # bytes that copying a weight moves


def rows(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    *large, small = SIZES
    with one_thread():
        return [
            row
            for size in ([small] if quick else large)
            for row in [*times(size, 2 if quick else 4), *memory(size)]
        ]


def times(size: str, rounds: int) -> list[Row]:
    """Return the rows of what changes of one model take."""
    subject = Subject(size)
    names = ("topk", "topk, again", "kthvalue", "copy", *PRUNES, RIGL)
    seen = measured({name: subject.event(name) for name in names}, rounds)
    weights = f"{size} ({subject.numel / 1e6:.3g} M)"
    medians = {name: statistics.median(taken) * 1000 for name, taken in seen.items()}
    kthvalue = Peer("kthvalue", medians["kthvalue"], paired(seen["kthvalue"], seen["topk"]))
    found = [_against_topk(f"topk of {weights}: A/A", "topk, again", seen)]
    for name, moved in BYTES.items():
        bound = [taken * moved / COPIED for taken in seen["copy"]]
        note = f"{paired(seen[name], bound):.1f} x the {moved} bytes a weight it moves"
        found.append(
            _against_topk(f"{name}, {weights}", name, seen, LIMIT, (kthvalue,), note),
        )
    del subject
    gc.collect()
    return [*found, *_against_peer(size, weights)]


def measured(events: Mapping[str, Event], rounds: int) -> dict[str, list[float]]:
    """Return processor seconds of every event, one of each in turn, after a round to warm up."""
    seen: dict[str, list[float]] = {name: [] for name in events}
    for number in range(-1, rounds):
        for name, event in events.items():
            event.prepare()
            began = time.process_time()
            event.run()
            if number >= 0:
                seen[name].append(time.process_time() - began)
    return seen


def memory(size: str) -> list[Row]:
    """Return the rows of what changes of one model hold at their peak."""
    found = peaks(size, ("topk", "prune, uniform", RIGL))
    return [
        Row(
            f"peak memory of {name}, {size}",
            taken,
            "bytes a weight",
            "topk",
            found["topk"],
            note="" if taken is not None else "no /proc here",
        )
        for name, taken in found.items()
        if name != "topk"
    ]


def _against_topk(
    what: str,
    name: str,
    seen: dict[str, list[float]],
    limit: float | None = None,
    peers: tuple[Peer, ...] = (),
    note: str = "",
) -> Row:
    ours, topk = (statistics.median(seen[key]) * 1000 for key in (name, "topk"))
    ratio = paired(seen[name], seen["topk"])
    return Row(what, ours, "ms", "topk", topk, ratio, limit, peers=peers, note=note)


def _against_peer(size: str, weights: str) -> list[Row]:
    """Return the rows of an update and of a prune beside the peer's update; it prunes no other way.

    Each has a model of its own, since the peer masks gradients too; its update takes very long.
    """
    what = {name: f"{name} over {PEER}'s update, {weights}" for name in BESIDE_PEER}
    try:
        events = {name: Subject(size).event(name) for name in (*BESIDE_PEER, PEER)}
    except NotInstalled as error:
        return [Row(text, None, "ms", note=f"{PEER}: {error}") for text in what.values()]
    seen = {name: taken[0] * 1000 for name, taken in measured(events, rounds=1).items()}
    theirs = seen[PEER]
    return [
        Row(
            text, seen[name], "ms", PEER, theirs, seen[name] / theirs, PEER_LIMIT,
            note="" if name == RIGL else "a prune grows nothing",
        )
        for name, text in what.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main(__doc__, rows)
