"""Draw the plans of C-GaP and P-GaP for docs/grow-and-prune.md.

    python scripts/plan_drawings.py

`tests/docs/test_site.py` holds docs/drawings/ to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gapbench.methods.method import plan
from gapbench.plan.phases import Layers, Parallel, Phase, Plan
from gapbench.spec.models import layers_of_trial, proxy

FOLDER = Path(__file__).parent.parent / "docs" / "drawings"
LEFT, TOP, WIDTH, GAP = 170, 24, 540, 10  # room for names, for labels; of the time; between workers
DENSE, SPARSE = "#CC6677", "#DDDDDD"


def drawings() -> dict[str, str]:
    """Return the files by name: two short plans over the layers of the task digits."""
    layers = layers_of_trial(proxy("digits", {}), "dense")
    plans = {
        "c_gap": plan("c_gap", layers, 33, partitions=4, step_epochs=3, steps=8),
        "p_gap": plan("p_gap", layers, 33, partitions=4, step_epochs=3, rounds=2),
    }
    return {f"{name}.svg": svg(plan, layers) for name, plan in plans.items()}


def svg(plan: Plan, layers: Layers) -> str:
    """Return a plan as a drawing: time to the right, layers down, workers below each other."""
    workers = max(segment.branches for segment in plan.segments)
    line = 14 if workers == 1 else 7
    band = line * len(layers) + GAP
    height = TOP + workers * band + 46
    body = [*_parts(plan, layers, workers, line, band), *_names(layers, workers, line, band)]
    legend = (("dense, trained", DENSE), ("sparse, trained inside its mask", SPARSE))
    for number, (words, colour) in enumerate(legend):
        x, y = LEFT + 130 * number, height - 12
        body += [_box(x, y - 9, 10, 10, colour), _text(x + 15, y, words)]
    words = f"{plan.epochs} machine-epochs, {plan.wall_epochs} epochs on the clock"
    body.append(_text(LEFT + WIDTH, height - 12, words, "end"))
    size = f'width="{LEFT + WIDTH + 10}" height="{height}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
        *body,
        "</svg>\n",
    ])  # fmt: skip


def _parts(plan: Plan, layers: Layers, workers: int, line: int, band: int) -> Iterator[str]:
    epoch, bottom = 0, TOP + workers * band
    for part in plan.parts:
        branches = part.branches if isinstance(part, Parallel) else (part,)
        length = max(branch.epochs for branch in branches)
        x, width = LEFT + WIDTH * epoch / plan.wall_epochs, WIDTH * length / plan.wall_epochs
        yield _text(x + width / 2, TOP - 8, branches[0].label, "middle")
        yield _text(x, bottom + 4, str(epoch), "middle")
        top = TOP + band * (workers - len(branches)) / 2
        for number, branch in enumerate(branches):
            yield from _block(branch, layers, x, top + number * band, width, line)
        epoch += length
    yield _text(LEFT + WIDTH, bottom + 4, f"{epoch}", "middle")


def _block(
    phase: Phase, layers: Layers, x: float, y: float, width: float, line: int
) -> Iterator[str]:
    for number, layer in enumerate(layers):
        colour = DENSE if layer.name in phase.grow else SPARSE
        yield _box(x + 1, y + number * line, width - 2, line - 1, colour)


def _names(layers: Layers, workers: int, line: int, band: int) -> Iterator[str]:
    if workers == 1:
        for number, layer in enumerate(layers):
            yield _text(LEFT - 8, TOP + number * line + 10, layer.name, "end")
        return
    for worker in range(workers):
        y = TOP + worker * band + (band - GAP) / 2 + 3
        yield _text(LEFT - 8, y, f"worker {worker + 1}: {len(layers)} layers", "end")


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    place = f'x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}"'
    return f'<rect {place} fill="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}">{words}</text>'


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in drawings().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
