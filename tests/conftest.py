"""What every test needs: one thread, a place for results, the data, and no silent skip."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

pytest_plugins = ["pytester"]

REQUIRE_ALL = "GAPBENCH_REQUIRE_ALL"

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

torch.set_num_threads(1)

# A shell that runs the tests in the background makes them ignore Ctrl-C, and their children too
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder that does not exist yet."""
    return tmp_path / "results"


@pytest.fixture(scope="session")
def fashion_mnist_data() -> None:
    """Fetch the data once; skip where no source has it."""
    from gapbench.errors import UserError
    from gapbench.tasks.data.sources import FASHION_MNIST, obtain

    try:
        obtain(FASHION_MNIST)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def fairseq() -> None:
    """Load fairseq; skip where it is not installed."""
    from gapbench.compat.fairseq_import import load_fairseq
    from gapbench.errors import NotInstalled

    try:
        load_fairseq()
    except NotInstalled as missing:
        pytest.skip(str(missing))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with modules that take long, so that no process ends with them while others wait."""
    order = ("slurm", "fairseq", "slow")
    rank: dict[str, int] = {}
    for item in items:
        module = item.nodeid.partition("::")[0]
        marks = [order.index(mark.name) for mark in item.iter_markers() if mark.name in order]
        rank[module] = min([rank.get(module, len(order)), *marks])
    items.sort(key=lambda item: rank[item.nodeid.partition("::")[0]])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a module in one process, but let pages of the docs go to any."""
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "docs/test_pages.py::test_a_reader" in nodeid:
                return nodeid
            return super()._split_scope(nodeid)

    return Modules(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))


def _refuse_skip(report: Report) -> Report:
    """Turn a skip into a failure where everything must run, as it must in CI."""
    if report.skipped and os.environ.get(REQUIRE_ALL) and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_ALL} is set, and this was skipped: {reason}"
    return report
