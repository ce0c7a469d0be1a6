"""The Python face of the suite: what `gapbench run` and `gapbench report` do, for programs.

study = gapbench.run("ablations/partitions.yaml", scale="smoke")
study.table  # a pandas DataFrame, one line a cell of the report's table
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapbench.errors import UserError
from gapbench.launch.following import epoch_bar, follow, settled
from gapbench.launch.jobs import Job, Launch, launch
from gapbench.launch.queue import Queue, usable
from gapbench.launch.submissions import look
from gapbench.runs.store import RunFolder
from gapbench.spec.grid import Entry
from gapbench.spec.selection import expanded

if TYPE_CHECKING:
    import pandas as pd

    from gapbench.analysis.collect import Scan
    from gapbench.analysis.evaluation import Evaluation
    from gapbench.report.build import ReportResult
    from gapbench.spec.ablation import Ablation

RESULTS = Path("results")

GOING = ("running", "queued")


@dataclass(frozen=True)
class ToDo:
    """What is left of a study: trials to run, those done, and those others run now.

    Attributes:
        forget: folders of those to run whose earlier attempts are to be forgotten.
    """

    entries: list[Entry]
    done: int
    elsewhere: list[Entry]
    forget: list[RunFolder]


@dataclass(frozen=True)
class Study:
    """Trials of an ablation at one scale, and the results folder that they are kept in.

    Attributes:
        ablation: the file with its includes.
        scale: one that the ablation has.
        entries: the trials, in the order of the file.
        results: the results folder; it need not exist.
        settings: what the trials were expanded with, as for `--set`.
        only: the patterns that they match, as for `--only`.
    """

    ablation: Ablation
    scale: str
    entries: tuple[Entry, ...]
    results: Path
    settings: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        file: str | Path,
        *,
        scale: str = "mini",
        only: Sequence[str] = (),
        seeds: int | Sequence[int] | str | None = None,
        settings: Sequence[str] = (),
        results: str | Path = RESULTS,
    ) -> Study:
        """Read an ablation, and check all of it that can be checked before it is run.

        Args:
            file: of the ablation.
            scale: its name.
            only: patterns that trials must match, as for `--only`.
            seeds: that many, or these, in place of the file's.
            settings: `KEY=VALUE` that go before everything in the file, as for `--set`.
            results: where run folders and reports are kept.

        Raises:
            UserError: naming file, key and the valid choices.
        """
        from gapbench.analysis.layout import require_section
        from gapbench.report.figures import require_figures

        chosen = range(seeds) if isinstance(seeds, int) else seeds
        ablation, found, entries = expanded(Path(file), scale, settings, only, chosen)
        require_figures(ablation)
        require_section(ablation, entries)
        place = Path(results)
        return cls(ablation, found, tuple(entries), place, tuple(settings), tuple(only))

    def folder(self, entry: Entry) -> RunFolder:
        """Return a trial's run folder; it need not exist."""
        return RunFolder(self.results / "runs" / entry.trial.key)

    def dry_run(self) -> pd.DataFrame:
        """Return what the trials will do and cost, a row a trial; nothing is trained."""
        import pandas as pd

        from gapbench.spec.dry_run import dry_run

        return pd.DataFrame([forecast.as_dict() for forecast in dry_run(self.entries)])

    # -- running -----------------------------------------------------------------------------------

    def run(
        self,
        executor: str = "auto",
        *,
        jobs: int | None = None,
        branches: int = 1,
        lanes: int | None = None,
        profile: str | Path | None = None,
        force: bool = False,
        retry_failed: bool = False,
    ) -> Study:
        """Run what is missing, wait for it, and return this study; interrupted trials go on.

        Args:
            executor: auto, local, slurm or debug; auto is slurm on a cluster.
            jobs: trials side by side; as many as fit by default.
            branches: processes for the branches of one P-GaP round.
            lanes: trials side by side in one process of the executor local; by default one on the
                CPU, and on a GPU as many as its memory has room for.
            profile: of the cluster, for SLURM.
            force: forget what the trials have done, and start over.
            retry_failed: run only those that have failed before.

        Raises:
            UserError: if nothing can be launched; trials that fail are told by `states`.
        """
        name, _ = executor_for(executor)
        todo = self.todo(force=force, retry_failed=retry_failed, attach=name == "slurm")
        place = None if profile is None else Path(profile)
        started = self.start(todo, name, jobs=jobs, branches=branches, lanes=lanes, profile=place)
        if started is not None:
            asked = (*todo.entries, *todo.elsewhere)
            with epoch_bar({self.folder(e): e.trial.plan.epochs for e in asked}) as show:
                try:
                    follow(started, lambda: self.going(todo), show)
                except KeyboardInterrupt:
                    started.stop()
                    raise
        return self

    def todo(
        self,
        *,
        force: bool = False,
        retry_failed: bool = False,
        attach: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> ToDo:
        """Sort the trials into those to run, those completed, and those that others run.

        What is about to end, such as a cancelled job, is waited for; `tell` is called with that.
        With `retry_failed` only those that have failed are to run or to wait for. With `attach`
        those that SLURM has already are to run too, which then means to follow them.

        Raises:
            UserError: if all that is left is being run by others.
        """
        todo: list[Entry] = []
        elsewhere: list[Entry] = []
        forget: list[RunFolder] = []
        done = 0
        folders = [self.folder(entry) for entry in self.entries]
        known = settled(folders, Queue(), tell)
        for entry, folder, seen in zip(self.entries, folders, known, strict=True):
            if seen.state == "completed" and (retry_failed or not force):
                done += 1
            elif retry_failed and seen.state != "failed":
                continue
            elif seen.state in GOING:
                # one that waits without a job is just being submitted by another launcher
                attached = attach and (seen.job or seen.state == "queued")
                (todo if attached else elsewhere).append(entry)
            else:
                todo.append(entry)
                if force:
                    forget.append(folder)
        if elsewhere and not todo:
            raise UserError(
                f"{self.results}: all {len(elsewhere)} trials that are left are being run by "
                f"another process: {elsewhere[0].label}; follow them with `gapbench status --watch`"
            )
        return ToDo(todo, done, elsewhere, forget)

    def start(
        self,
        todo: ToDo,
        executor: str,
        *,
        jobs: int | None = None,
        branches: int = 1,
        lanes: int | None = None,
        profile: Path | None = None,
    ) -> Launch | None:
        """Launch what is to do; what is forgotten comes back where the launcher refuses.

        Raises:
            UserError: if it does, or if lanes are asked of another executor than local.
        """
        if lanes is not None and executor != "local":
            raise UserError(f"lanes: the executor {executor} has none; use local")
        if not todo.entries:
            return None
        own: dict[str, dict[str, Any]] = {"slurm": {"profile": profile}, "local": {"lanes": lanes}}
        options = own.get(executor, {})
        with ExitStack() as stack:
            for folder in todo.forget:
                stack.enter_context(folder.forgotten())
            for entry in todo.entries:
                self.folder(entry).prepare(entry.trial.document())
            # how long trials take matters only where they are packed
            work = self._jobs(todo.entries, branches, known=executor == "slurm")
            return launch(executor, work, jobs, **options)

    def slurm_jobs(
        self, *, jobs: int | None = None, branches: int = 1, profile: Path | None = None
    ) -> str:
        """Say how many SLURM jobs would carry those trials that have not completed."""
        from gapbench.launch.slurm import arranged

        left = [entry for entry in self.entries if not self.folder(entry).completed()]
        return str(arranged(self._jobs(left, branches, known=True), jobs, profile))

    def _jobs(self, entries: Sequence[Entry], branches: int, known: bool) -> list[Job]:
        """Return what launches trials, `known`: with the time that each is expected to take."""
        seconds: dict[str, float] = {}
        if known:  # pandas takes half a second
            from gapbench.analysis.durations import expected_seconds
            from gapbench.analysis.evidence import all_runs

            seconds = expected_seconds(entries, all_runs(self.results))
        told = ((entry, seconds.get(entry.trial.key)) for entry in entries)
        name = self.ablation.name
        return [_job(self.folder(entry), name, entry, branches, time) for entry, time in told]

    def going(self, todo: ToDo, queue: Queue | None = None) -> bool:
        """Say whether any of these trials runs or waits, for this launcher or for another."""
        folders = [self.folder(entry) for entry in (*todo.entries, *todo.elsewhere)]
        return any(seen.state in GOING for seen in look(folders, queue or Queue()))

    # -- results -----------------------------------------------------------------------------------

    def states(self) -> pd.DataFrame:
        """Return key, label, state and last error of every trial."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        folders = [self.folder(entry) for entry in self.entries]
        for entry, folder, seen in zip(self.entries, folders, look(folders, Queue()), strict=True):
            error = folder.read_status().get("error") if seen.state == "failed" else None
            told = {"key": entry.trial.key, "label": entry.label}
            rows.append({**told, "state": seen.state, "error": error})
        return pd.DataFrame(rows)

    def report(self) -> ReportResult:
        """Write the report of what has run, its page included, and return it with its paths."""
        from gapbench.analysis.evidence import all_runs
        from gapbench.report.build import report
        from gapbench.report.page import write_page

        found = all_runs(self.results)
        made = report(self.ablation, self.scale, self._known(found), self.results, found)
        write_page([made], f"{self.ablation.name}, scale {self.scale}", found, made.page)
        return made

    def next_look(self, asked: Collection[str] = ()) -> Study | None:
        """Return the trials that the next look at open claims asks for, as a study of their own.

        No look takes more seeds than this study has.

        Args:
            asked: keys of trials that were asked for before: a look that needs one which has not
                completed since is not made.

        Raises:
            UserError: if the ablation makes no claims.
        """
        from gapbench.analysis.seeds import next_look

        evaluation, found, most = self._claims()
        failed = [key for key in asked if key not in found.runs]
        part = self._lacking(next_look(evaluation, self.entries, most, failed), found)
        return part if part.entries else None

    def all_looks(self) -> tuple[Study, Study]:
        """Return the trials that open claims are likely to take, and those that they take at most.

        Raises:
            UserError: if the ablation makes no claims.
        """
        from gapbench.analysis.seeds import all_looks

        evaluation, found, most = self._claims()
        likely, largest = all_looks(evaluation, self.entries, most)
        return self._lacking(likely, found), self._lacking(largest, found)

    def _claims(self) -> tuple[Evaluation, Scan, int]:
        """Return what the claims are answered, what has run, and the seeds of this study."""
        from gapbench.analysis.collect import runs_frame
        from gapbench.analysis.evaluation import evaluate
        from gapbench.analysis.evidence import all_runs

        if not self.ablation.spec.claims:
            words = "it makes no claims to resolve: leave --until-resolved out"
            raise UserError(f"{self.ablation.document.name}: {words}")
        found = all_runs(self.results)
        evaluation = evaluate(runs_frame(self.entries, found), self.ablation.spec)
        return evaluation, found, 1 + max(entry.trial.seed for entry in self.entries)

    def _lacking(self, entries: Sequence[Entry], found: Scan) -> Study:
        """Return a study of the trials that have not run."""
        left = (entry for entry in entries if entry.trial.key not in found.runs)
        return replace(self, entries=tuple(left))

    def _known(self, found: Scan) -> list[Entry]:
        """Return the trials, and those of other seeds that have completed."""
        from gapbench.analysis.seeds import with_others

        picked = {"settings": self.settings, "only": self.only}
        return with_others(self.ablation, self.scale, self.entries, found, **picked)

    @property
    def runs(self) -> pd.DataFrame:
        """One row a trial: its settings, and what was measured if it has completed."""
        from gapbench.analysis.collect import runs_frame
        from gapbench.analysis.evidence import all_runs

        found = all_runs(self.results)
        return runs_frame(self._known(found), found)

    @property
    def table(self) -> pd.DataFrame:
        """One row a cell of the report's table: mean, interval, n, costs, published value."""
        import io

        import pandas as pd

        from gapbench.analysis.evaluation import evaluate
        from gapbench.report.numbers import cells_frame

        text = cells_frame(evaluate(self.runs, self.ablation.spec)).to_csv(index=False)
        return pd.read_csv(io.StringIO(text))  # which finds the kind of every column


def run(
    file: str | Path,
    *,
    scale: str = "mini",
    only: Sequence[str] = (),
    seeds: int | Sequence[int] | str | None = None,
    settings: Sequence[str] = (),
    results: str | Path = RESULTS,
    **how: Any,
) -> Study:
    """Read an ablation, run what is missing of it, and return the study.

    Args:
        file: of the ablation.
        scale: its name.
        only: patterns that trials must match.
        seeds: that many, or these, in place of the file's.
        settings: `KEY=VALUE` that go before everything in the file.
        results: where run folders and reports are kept.
        how: as for `Study.run`.

    Raises:
        UserError: about whatever does not fit.
    """
    study = Study.read(
        file, scale=scale, only=only, seeds=seeds, settings=settings, results=results
    )
    return study.run(**how)


def executor_for(name: str) -> tuple[str, str]:
    """Return the executor to use for what was asked, and why."""
    if name != "auto":
        return name, "as asked"
    if "SLURM_JOB_ID" in os.environ:
        return "local", "inside a SLURM job"
    cluster, why = usable()
    return ("slurm" if cluster else "local"), why


def job_of(results: Path, ablation: str, entry: Entry, branches: int) -> Job:
    """Write a trial's folder and return what launches it."""
    folder = RunFolder(results / "runs" / entry.trial.key)
    folder.prepare(entry.trial.document())
    return _job(folder, ablation, entry, branches)


def _job(
    folder: RunFolder, ablation: str, entry: Entry, branches: int, seconds: float | None = None
) -> Job:
    recipe, task = entry.trial.recipe, entry.trial.proxy.task
    return Job(
        folder=folder.path.resolve(),
        ablation=ablation,
        label=entry.label,
        resources=task.resources,
        threads=recipe.cpu_threads,
        branches=branches,
        ranks=entry.trial.ranks,
        portable=recipe.portable,
        compiled=task.compile,
        plan=entry.trial.plan,
        seconds=seconds,
    )
