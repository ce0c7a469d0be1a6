from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gapbench.analysis.layout import check_names
from gapbench.analysis.records import differ, records_of
from gapbench.errors import UserError
from gapbench.report.canvas import figures
from gapbench.report.figures import NAMES
from tests.report.folders import entry_of, spec_of, trial_of

PARTITIONS = Path(__file__).parents[2] / "ablations" / "partitions.yaml"


def test_the_names_known_without_drawing_are_those_that_can_be_drawn():
    assert list(NAMES) == list(figures)


def test_a_dry_run_loads_nothing_that_only_reports_need():
    heavy = ["pandas", "matplotlib", "seaborn", "scipy", "jinja2"]
    program = f"""if True:
        import sys
        from gapbench.run import main
        code = main([{str(PARTITIONS)!r}, "--dry-run"])
        print(code, [name for name in {heavy} if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_settings_differ_where_people_would_write_them_differently():
    assert differ(0.5, 0.25) and differ(None, 4) and differ(1, True)
    assert not differ(4, 4.0)
    assert not differ(None, float("nan"))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"baseline": {"method": "cgap"}}, r"report\.baseline\.method: .*did you mean 'c_gap'"),
        (
            {
                "claims": [
                    {"asks": "?", "better": {}, "than": {"distribution": ["uniform", "erkk"]}}
                ]
            },
            r"claims\[0\]\.than\.distribution: .*did you mean 'erk'",
        ),
    ],
)
def test_a_misspelt_method_or_distribution_is_no_row_that_is_missing(section, message):
    trials = records_of([entry_of(trial_of())])
    with pytest.raises(UserError, match=message):
        check_names(trials, trials[0], spec_of(**section))
