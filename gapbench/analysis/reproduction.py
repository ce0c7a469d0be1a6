"""Comparison of a second run of a completed trial with the original, bit by bit."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapbench.analysis.collect import Run, folders_of, measured, read_run
from gapbench.analysis.evidence import published_runs
from gapbench.analysis.records import is_given
from gapbench.analysis.stats import summary
from gapbench.base.documents import is_plain
from gapbench.errors import UserError
from gapbench.runs.store import RunFolder, one_key
from gapbench.spec.trials import Trial
from gapbench.tasks.task import tasks

if TYPE_CHECKING:
    from torch import Tensor

# what has to be equal, by its name in `measured`; times and places may differ
PARTS = (
    "test/", "heldout/", "val/", "train/", "sparsity/", "density/", "parameters/", "cost/",
    "exploration/", "signatures/", "digest/", "run/data_sha256", "run/epochs", "run/wall_epochs",
)  # fmt: skip
# what may be why it is not, most likely first
CAUSES = ("run/data_sha256", "environment/", "run/ranks")
MOST_SHOWN = 5
LEAST_SEEDS = 3  # of a row, for an interval
# what bits depend on beside the trial: kernels are chosen by them
KIND_OF_MACHINE = ("environment/cpu", "environment/gpu", "environment/torch")


@dataclass(frozen=True)
class Original(Run):
    """A completed trial, from its run folder or as published.

    Attributes:
        seeds: metric values of all published trials that differ from this trial in the seed only,
            this trial included.
    """

    seeds: tuple[float, ...] = ()

    @cached_property
    def values(self) -> dict[str, Any]:
        """Measurements by names such as "cost/train_flops"."""
        return dict(measured(self.result))


@dataclass(frozen=True)
class Finding:
    """The number of equal items of one kind, and one line for each different item."""

    what: str
    equal: int
    different: tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """The position of a result among the results of a row's seeds.

    Equal bits are promised on one kind of machine. On another kind of machine, the result is judged
    by the 95 % prediction interval for one more seed: mean ± t(n - 1) · s · sqrt(1 + 1 / n).

    The seeds' values include the original's; `value` is that of the second run.
    """

    metric: str
    value: float
    seeds: tuple[float, ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The lower and the upper end of the interval, or None for fewer than three seeds."""
        if len(self.seeds) < LEAST_SEEDS:
            return None
        found = summary(self.seeds)
        half = (found.half_width or 0.0) * math.sqrt(found.n + 1)
        return found.mean - half, found.mean + half

    @property
    def within(self) -> bool | None:
        """Whether the value lies in the interval; None without an interval."""
        ends = self.interval
        return None if ends is None else ends[0] <= self.value <= ends[1]

    @property
    def line(self) -> str:
        """One line for people."""
        count = len(self.seeds)
        begin = f"another kind of machine: {self.metric} {self.value:.2f}"
        if (ends := self.interval) is None:
            return f"{begin} cannot be judged: {LEAST_SEEDS} seeds are needed, the row has {count}"
        place = "within" if self.within else "outside"
        shown = f"the 95 % prediction interval of {count} seeds, {ends[0]:.2f} to {ends[1]:.2f}"
        return f"{begin} lies {place} {shown}"


@dataclass(frozen=True)
class Reproduction:
    """A second run beside the original.

    Attributes:
        missing: items that could not be compared, with the reason.
        causes: differences between the environments of both runs.
        spread: on another kind of machine, the position of the second result among other seeds.
    """

    findings: tuple[Finding, ...]
    missing: tuple[str, ...]
    causes: tuple[str, ...]
    spread: Spread | None = None

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not any(finding.different for finding in self.findings)

    @property
    def agrees(self) -> bool:
        """Whether all is equal, or the result is within the interval on another kind of machine."""
        return self.equal or (self.spread is not None and self.spread.within is True)

    def lines(self) -> Iterator[str]:
        """Yield the lines for people."""
        for finding in self.findings:
            yield f"equal: {finding.equal} {finding.what}"
            for line in finding.different[:MOST_SHOWN]:
                yield f"different: {line}"
            if len(finding.different) > MOST_SHOWN:
                yield f"different: and {len(finding.different) - MOST_SHOWN} more {finding.what}"
        for line in self.missing:
            yield f"not compared: {line}"
        if self.spread is not None and not self.equal:
            yield self.spread.line
        if not self.equal:
            for line in self.causes:
                yield f"likely cause: {line}"
            if not self.causes:
                yield (
                    "no cause is known: data, versions and hardware are the same; the original "
                    "was changed, or training is not deterministic here"
                )


# -- the original --------------------------------------------------------------------------------


def find_original(results: Path, key: str) -> Original:
    """Return the completed trial whose key begins with `key`, from its folder or as published.

    Raises:
        UserError: if no trial or several trials match, or the published trials are damaged.
    """
    folders = {folder.path.name: folder for folder in folders_of(results)}
    published = {run.trial.key: run for run in published_runs(results)}
    name = one_key(results, key, sorted({*folders, *published}))
    run, reason = _run_in(folders[name]) if name in folders else (None, "")
    run = run or published.get(name)
    if run is None:
        raise UserError(
            f"trial {name}: no result to compare with: {reason}: `gapbench run FILE` trains the "
            "trial"
        )
    return Original(**vars(run), seeds=_seeds(run.trial, published.values()))


def _seeds(trial: Trial, published: Iterable[Run]) -> tuple[float, ...]:
    """Return the metric values of published trials that differ from a trial in the seed only."""
    metric = f"test/{tasks[trial.task].metric.name}"
    alike = [run for run in published if _but_seed(run.trial) == _but_seed(trial)]
    if not any(run.trial.key == trial.key for run in alike):
        return ()
    return tuple(float(run.result["metrics"][metric]) for run in alike)


def _but_seed(trial: Trial) -> dict[str, Any]:
    """Return the settings that all seeds of a row share, without the plan, which may differ."""
    return trial.model_dump(exclude={"seed", "plan", "budget"}) | {"epochs": trial.plan.epochs}


def _run_in(folder: RunFolder) -> tuple[Run | None, str]:
    """Return a folder's completed run, or None and the reason."""
    try:
        return read_run(folder), f"the trial is {folder.state()}"
    except UserError as error:
        return None, str(error)


# -- the comparison ------------------------------------------------------------------------------


def compared(original: Original, again: Run) -> Reproduction:
    """Compare a second run, read from its run folder, with the original, bit by bit."""
    folder = RunFolder(again.place)
    here = dict(measured(again.result))
    findings, missing = [_finding("values", _values(original.values, here))], []
    if original.folder is None:
        known = is_given(original.values.get("digest/weights"))
        words = "history: {} has none (weights and masks are compared by their digests)"
        words = words if known else "history and weights: {} has neither"
        missing.append(words.format(original.place.name))
    elif not is_plain(original.folder.history):
        missing.append("history: the original's run folder has no history any more")
    else:
        findings.append(_finding("lines of history", _history(original.folder, folder)))
    if original.folder is not None and is_plain(original.folder.model):
        findings.append(_finding("tensors", _tensors(original.folder, folder)))
    elif original.folder is not None:
        missing.append("weights and masks: the original's run folder has neither any more")
    spread = None
    metric = f"test/{again.trial.make_task().metric.name}"
    portable = again.trial.recipe.portable and here.get("environment/gpu") is None
    kind = [name for name in KIND_OF_MACHINE if not (portable and name == "environment/cpu")]
    if any(original.values.get(name) != here.get(name) for name in kind):
        spread = Spread(metric, again.result["metrics"][metric], original.seeds)
    causes = tuple(_causes(original.values, here))
    return Reproduction(tuple(findings), tuple(missing), causes, spread)


def _finding(what: str, items: Iterable[str]) -> Finding:
    """Return the finding of items that are "" where they are equal, else what differs."""
    found = list(items)
    different = tuple(filter(None, found))
    return Finding(what, len(found) - len(different), different)


def _values(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for name in there:
        if name.startswith(PARTS) and there[name] is not None:
            # the shortest text that gives a float back is as good as its bits, and NaN equals NaN
            alike = repr(there[name]) == repr(here.get(name))
            yield "" if alike else f"{name}: {_both(there[name], here.get(name))}"
    for name in here:
        if name.startswith(("test/", "heldout/", "val/")) and there.get(name) is None:
            yield f"{name}: {_both(None, here[name])}"


def _both(there: object, here: object) -> str:
    words = f"{there} there, {here} here"
    if isinstance(there, (int, float)) and isinstance(here, (int, float)):
        words += f" ({here - there:+.3g})"
    return words


def _history(there: RunFolder, here: RunFolder) -> Iterator[str]:
    lines = (folder.history.read_bytes().splitlines() for folder in (there, here))
    for number, (one, other) in enumerate(zip_longest(*lines), 1):
        yield "" if one == other else f"{there.history.name}: line {number}"


def _tensors(there: RunFolder, here: RunFolder) -> Iterator[str]:
    ours = dict(_loaded(here))
    for name, tensor in _loaded(there):
        other = ours.pop(name, None)
        if other is None or other.shape != tensor.shape or other.dtype != tensor.dtype:
            yield f"{name}: missing, or of another shape or type"
        elif _bits(tensor) == _bits(other):
            yield ""
        else:
            yield f"{name}: {int((tensor != other).sum())} of {tensor.numel()} entries"
    for name in ours:
        yield f"{name}: not in the original"


def _loaded(folder: RunFolder) -> Iterator[tuple[str, Tensor]]:
    import torch  # noqa: PLC0415 - only where files are compared: 2 s

    try:
        groups = torch.load(folder.model, map_location="cpu", weights_only=True)
        for group, tensors in groups.items():
            for name, tensor in tensors.items():
                yield f"{group}/{name}", tensor
    except (OSError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError):
        raise UserError(f"{folder.model}: is damaged: delete it to compare the rest") from None


def _bits(tensor: Tensor) -> bytes:
    import torch  # noqa: PLC0415 - only where files are compared: 2 s

    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _causes(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for part in CAUSES:
        for name in sorted({*there, *here}):
            one, other = there.get(name), here.get(name)
            if name.startswith(part) and repr(one) != repr(other):
                words = name.partition("/")[2].replace("_", " ")
                yield f"{words}: {one} there, {other} here"
