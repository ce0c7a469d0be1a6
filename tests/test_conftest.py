"""Where everything must run, a skipped test is a failed one."""

from __future__ import annotations

from pathlib import Path

import pytest

SKIPPING = """
    import pytest

    def test_runs(): pass

    def test_skips(): pytest.skip("no cluster here")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    pytester.makepyfile(test_one=SKIPPING)
    return pytester


@pytest.mark.slow
def test_a_skip_is_a_failure_where_everything_is_required(suite, monkeypatch):
    monkeypatch.setenv("GAPBENCH_REQUIRE_ALL", "1")
    suite.makepyfile(test_two="import pytest; pytest.importorskip('no_such_module')")
    done = suite.runpytest_subprocess("--continue-on-collection-errors")
    done.assert_outcomes(passed=1, failed=1, errors=1)
    done.stdout.fnmatch_lines(["*GAPBENCH_REQUIRE_ALL is set, and this was skipped*no cluster*"])


def test_a_skip_stays_a_skip_elsewhere(suite, monkeypatch):
    monkeypatch.delenv("GAPBENCH_REQUIRE_ALL", raising=False)
    suite.runpytest_subprocess().assert_outcomes(passed=1, skipped=1)
