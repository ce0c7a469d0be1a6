"""The Python interface to `gapbench run` and `gapbench report`.

study = gapbench.run("ablations/partitions.yaml", scale="smoke")
study.table  # a pandas DataFrame, one row per cell of the report's table
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
from gapbench.launch.jobs import Job, Launch, executors, launch
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
    """The trials of a study, sorted into trials to run, completed trials, and trials elsewhere.

    Attributes:
        entries: trials to run.
        done: number of completed trials.
        elsewhere: trials that another process runs or has queued.
        forget: folders of the trials to run whose earlier attempts are set aside.
    """

    entries: list[Entry]
    done: int
    elsewhere: list[Entry]
    forget: list[RunFolder]


@dataclass(frozen=True)
class Study:
    """The trials of an ablation at one scale, and their results folder.

    Attributes:
        ablation: the ablation file with its includes.
        scale: name of a scale of the ablation.
        entries: the trials, in the order of the file.
        results: the results folder; the folder need not exist.
        settings: `KEY=VALUE` settings that override the file, as for `--set`.
        only: patterns that the trials match, as for `--only`.
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
        """Read an ablation, and check everything that can be checked before a run.

        Args:
            file: the ablation file.
            scale: name of the scale.
            only: patterns that trials must match, as for `--only`.
            seeds: a number of seeds, or the seeds themselves; they replace the file's seeds.
            settings: `KEY=VALUE` settings that override the file, as for `--set`.
            results: folder of run folders and reports.

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
        """Return a trial's run folder; the folder need not exist."""
        return RunFolder(self.results / "runs" / entry.trial.key)

    def dry_run(self) -> pd.DataFrame:
        """Return what the trials will do and cost, one row per trial; nothing is trained."""
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
        """Run the missing trials to their end and return this study; interrupted trials resume.

        Args:
            executor: auto, local, slurm or debug; auto is slurm on a cluster, else local.
            jobs: number of trials that run in parallel; by default as many as fit.
            branches: number of processes for the branches of one P-GaP round.
            lanes: number of trials that the executor local trains in parallel in one process; by
                default one on the CPU, and as many on a GPU as fit its memory.
            profile: file of the cluster profile, for SLURM.
            force: discard what the trials have done, and start over.
            retry_failed: run only trials that have failed before.

        Raises:
            UserError: if nothing can be launched; `states` lists trials that fail.
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
        """Sort the trials into trials to run, completed trials, and trials of other processes.

        This call waits for trials that are about to end, such as a cancelled job, and passes a
        message about them to `tell`. With `retry_failed`, only failed trials are to run. With
        `attach`, trials that SLURM already has count as trials to run; the launcher follows them.

        Raises:
            UserError: if other processes run all trials that are left.
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
                f"{self.results}: another process runs the remaining trials ({len(elsewhere)}): "
                f"{elsewhere[0].label}: `gapbench status --watch` follows the trials"
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
        """Launch the trials to run; if the launcher refuses, restore the attempts set aside.

        Raises:
            UserError: if the launcher refuses, or if lanes are given for an executor but local.
        """
        if lanes is not None and executor != "local":
            raise UserError(f"lanes: the executor {executor} has no lanes: use local")
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
        """Say how many SLURM jobs the trials that have not completed would take."""
        from gapbench.launch.slurm import arranged

        left = [entry for entry in self.entries if not self.folder(entry).completed()]
        return str(arranged(self._jobs(left, branches, known=True), jobs, profile))

    def _jobs(self, entries: Sequence[Entry], branches: int, known: bool) -> list[Job]:
        """Return the trials as jobs; with `known`, each job has its expected training time."""
        seconds: dict[str, float] = {}
        if known:  # pandas takes half a second
            from gapbench.analysis.durations import expected_seconds
            from gapbench.analysis.evidence import all_runs

            seconds = expected_seconds(entries, all_runs(self.results))
        told = ((entry, seconds.get(entry.trial.key)) for entry in entries)
        name = self.ablation.name
        return [_job(self.folder(entry), name, entry, branches, time) for entry, time in told]

    def going(self, todo: ToDo, queue: Queue | None = None) -> bool:
        """Say whether any of these trials runs or is queued, by this launcher or another one."""
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
        """Write the report and its HTML page; return the report with the paths of its files."""
        from gapbench.analysis.evidence import all_runs
        from gapbench.report.build import report
        from gapbench.report.page import write_page

        found = all_runs(self.results)
        made = report(self.ablation, self.scale, self._known(found), self.results, found)
        write_page([made], f"{self.ablation.name}, scale {self.scale}", found, made.page)
        return made

    def next_look(self, asked: Collection[str] = ()) -> Study | None:
        """Return a study of the trials that the next look at open claims needs, or None.

        No look takes more seeds than this study has.

        Args:
            asked: keys of trials that earlier looks asked for. A look is left out if it needs one
                of these trials and the trial has not completed.

        Raises:
            UserError: if the ablation makes no claims.
        """
        from gapbench.analysis.seeds import next_look

        evaluation, found, most = self._claims()
        failed = [key for key in asked if key not in found.runs]
        part = self._lacking(next_look(evaluation, self.entries, most, failed), found)
        return part if part.entries else None

    def all_looks(self) -> tuple[Study, Study]:
        """Return two studies: the trials that open claims are likely to need, and the most trials.

        Raises:
            UserError: if the ablation makes no claims.
        """
        from gapbench.analysis.seeds import all_looks

        evaluation, found, most = self._claims()
        likely, largest = all_looks(evaluation, self.entries, most)
        return self._lacking(likely, found), self._lacking(largest, found)

    def _claims(self) -> tuple[Evaluation, Scan, int]:
        """Return the answers to the claims, the completed trials, and the number of seeds."""
        from gapbench.analysis.collect import runs_frame
        from gapbench.analysis.evaluation import evaluate
        from gapbench.analysis.evidence import all_runs

        if not self.ablation.spec.claims:
            words = "no claims to resolve: leave --until-resolved out"
            raise UserError(f"{self.ablation.document.name}: {words}")
        found = all_runs(self.results)
        evaluation = evaluate(runs_frame(self.entries, found), self.ablation.spec)
        return evaluation, found, 1 + max(entry.trial.seed for entry in self.entries)

    def _lacking(self, entries: Sequence[Entry], found: Scan) -> Study:
        """Return a study of the trials that have not run."""
        left = (entry for entry in entries if entry.trial.key not in found.runs)
        return replace(self, entries=tuple(left))

    def _known(self, found: Scan) -> list[Entry]:
        """Return the trials, and completed trials of other seeds."""
        from gapbench.analysis.seeds import with_others

        picked = {"settings": self.settings, "only": self.only}
        return with_others(self.ablation, self.scale, self.entries, found, **picked)

    @property
    def runs(self) -> pd.DataFrame:
        """One row per trial: settings, and measurements if the trial has completed."""
        from gapbench.analysis.collect import runs_frame
        from gapbench.analysis.evidence import all_runs

        found = all_runs(self.results)
        return runs_frame(self._known(found), found)

    @property
    def table(self) -> pd.DataFrame:
        """One row per cell of the report's table: mean, interval, n, costs, published value."""
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
    """Read an ablation, run its missing trials, and return the study.

    Args:
        file: the ablation file.
        scale: name of the scale.
        only: patterns that trials must match.
        seeds: a number of seeds, or the seeds themselves; they replace the file's seeds.
        settings: `KEY=VALUE` settings that override the file.
        results: folder of run folders and reports.
        how: arguments of `Study.run`.

    Raises:
        UserError: if the file or an argument is invalid.
    """
    study = Study.read(
        file, scale=scale, only=only, seeds=seeds, settings=settings, results=results
    )
    return study.run(**how)


def executor_for(name: str) -> tuple[str, str]:
    """Return the executor for the requested name, and the reason for the choice.

    Raises:
        UserError: if no executor has the name.
    """
    if name != "auto":
        executors[name]  # refuses a name that is not there
        return name, "as asked"
    if "SLURM_JOB_ID" in os.environ:
        return "local", "inside a SLURM job"
    cluster, why = usable()
    return ("slurm" if cluster else "local"), why


def job_of(results: Path, ablation: str, entry: Entry, branches: int) -> Job:
    """Write a trial's run folder and return the trial as a job."""
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
