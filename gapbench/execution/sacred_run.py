"""One attempt of one trial as a Sacred run. The only module that uses sacred.

This module gets the path of a run folder, which has everything that the attempt needs. Sacred
records the attempt for people; the run folder's files decide whether the trial is complete.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gapbench.base.documents import append_plain, write_text
from gapbench.compat.sacred_import import (
    SETTINGS,
    Experiment,
    FileStorageObserver,
    SacredInterrupt,
)
from gapbench.errors import UserError
from gapbench.execution.stopping import StopSign
from gapbench.execution.trial_run import Execution, LegEnded, run_trial
from gapbench.runs.store import RunFolder, TakenOver
from gapbench.spec.trials import Trial
from gapbench.training.loop import Interrupted
from gapbench.training.turn import TURN

SETTINGS.DISCOVER_SOURCES = "none"  # which modules are ours is told by `own_sources`
# Sacred waits for nvidia-smi without limit, and fails the trial if it cannot parse the output;
# result.json has the hardware
SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False
SETTINGS.HOST_INFO.INCLUDE_CPU_INFO = False
SETTINGS.CAPTURE_MODE = "no"  # log.txt has the output; capturing would redirect other threads
SETTINGS.CONFIG.READ_ONLY_CONFIG = False  # read-only copies end as junk in run.json

_KEY = re.compile(r"(?!py/)\w[\w-]*")  # what every database, and Sacred's command line, can hold


class AttemptInterrupted(SacredInterrupt):
    """Ends a Sacred run that was asked to stop."""

    STATUS = "INTERRUPTED"


class AttemptPaused(AttemptInterrupted):
    """Ends a Sacred run at the epoch at which another job takes over the trial."""


def run_attempt(
    run_dir: str | Path,
    ablation: str,
    execution: Execution | None = None,
    stop: Callable[[], bool] | None = None,
) -> str:
    """Run one attempt of the trial in `run_dir`, and write its state into the folder.

    Args:
        run_dir: a run folder with a trial.json.
        ablation: name of the ablation and of the Sacred experiment.
        execution: settings of the execution, without influence on the results.
        stop: function that says after every step whether to stop; by default a flag that signals
            raise.

    Returns:
        "completed", "interrupted" (a further run resumes), "leg ended" (at `execution.until`),
        "failed", or "taken over" (by another copy of the attempt).

    Raises:
        Owned: if another process owns the folder.
    """
    folder, execution = RunFolder(Path(run_dir)), execution or Execution()
    if stop is None:
        sign = StopSign()
        sign.raised_by_signals()
        stop = sign
    with folder.owned(execution.lanes):
        if folder.completed():
            return "completed"
        if folder.cancelled.exists():
            return "interrupted"
        try:
            return _attempt(folder, ablation, execution, stop)
        except TakenOver:
            return "taken over"


def _attempt(
    folder: RunFolder, ablation: str, execution: Execution, stop: Callable[[], bool]
) -> str:
    attempt = folder.begin_attempt()
    try:
        _sacred_run(folder, ablation, attempt, execution, stop)
    except AttemptPaused:
        folder.end_leg()
        return "leg ended"
    except AttemptInterrupted:
        folder.end_attempt("interrupted")
        return "interrupted"
    except TakenOver:
        raise
    except Exception as error:
        _keep_error(folder, error)
        return "failed"
    folder.end_attempt("completed")
    return "completed"


def _sacred_run(
    folder: RunFolder,
    ablation: str,
    attempt: int,
    execution: Execution,
    stop: Callable[[], bool],
) -> None:
    package = Path(__file__).parent.parent
    with ExitStack() as preparing:
        preparing.enter_context(TURN)  # Sacred seeds torch's generator, and reading may draw
        trial = Trial.read(folder.trial)
        experiment: Any = Experiment(ablation, base_dir=str(package.parent), save_git_info=False)
        for path in own_sources():
            experiment.add_source_file(path)
        experiment.observers.append(FileStorageObserver(str(folder.sacred)))
        experiment.add_config(config_of(trial.model_dump(mode="json")))
        experiment.logger = _logger(folder)

        def attempt_once(_run: Any) -> float:
            preparing.close()

            def log_scalar(name: str, value: float, step: int) -> None:
                _run.log_scalar(name, value, step)

            try:
                result = run_trial(folder, trial, execution, stop, log_scalar)
            except LegEnded:
                raise AttemptPaused from None
            except Interrupted:
                raise AttemptInterrupted from None
            _run.info["result"] = result
            return float(next(iter(result["metrics"].values())))

        experiment.main(attempt_once)
        experiment.run(options={"--id": str(attempt), "--force": True})


def own_sources() -> list[str]:
    """Return the files of the loaded modules of this package and of plug-ins."""
    known = entry_points()
    groups = [group for group in known.groups if group.startswith("gapbench.")]
    points = [point for group in groups for point in known.select(group=group)]
    own = {"gapbench", *(point.module.partition(".")[0] for point in points)}
    modules = list(sys.modules.items())  # other threads may import
    loaded = [module for name, module in modules if name.partition(".")[0] in own]
    files = {getattr(module, "__file__", None) for module in loaded}
    return sorted(file for file in files if file is not None and file.endswith(".py"))


def config_of(value: Any) -> Any:
    """Return a configuration in a form that Sacred accepts.

    Sacred refuses keys that a database could not store, such as names of layers. A mapping with
    such a key becomes a list of keys and values.
    """
    if isinstance(value, list):
        return [config_of(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    inner = {key: config_of(held) for key, held in value.items()}
    return inner if all(map(_KEY.fullmatch, inner)) else [[key, inner[key]] for key in inner]


def _logger(folder: RunFolder) -> logging.Logger:
    logger = logging.getLogger(f"gapbench.{folder.path.name}")
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.INFO)
    append_plain(folder.log).close()  # a link is not followed
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


def _keep_error(folder: RunFolder, error: Exception) -> None:
    folder.require_owner()
    told = isinstance(error, UserError)  # its one line says all; others need their traceback
    text = f"{error}\n" if told else "".join(traceback.format_exception(error))
    write_text(folder.error, text)
    line = str(error) if told else f"{type(error).__name__}: {error}"
    folder.end_attempt("failed", error=" ".join(line.split()))


def main(arguments: list[str] | None = None) -> int:
    """Run one attempt from the command line; return 0 (completed), 1 (failed) or 3 (run again)."""
    parser = argparse.ArgumentParser(prog="python -m gapbench.execution.sacred_run")
    parser.add_argument("run_dir")
    parser.add_argument("--ablation", required=True)
    parser.add_argument("--branches", type=int, default=1)
    parser.add_argument("--checkpoint-seconds", type=float, default=Execution.checkpoint_seconds)
    given = parser.parse_args(arguments)
    execution = Execution(given.branches, given.checkpoint_seconds)
    state = run_attempt(given.run_dir, given.ablation, execution)
    return {"completed": 0, "failed": 1}.get(state, 3)


if __name__ == "__main__":
    sys.exit(main())
