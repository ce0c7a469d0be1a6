from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbench.errors import UserError
from gapbench.spec.budget import nearest_epochs


@given(st.floats(0.01, 500), st.floats(0.01, 3))
def test_a_cost_in_proportion_to_epochs_gives_the_nearest_of_all(target, slope):
    fewest = 1.1 * target >= slope  # else one epoch is too much
    if not fewest:
        with pytest.raises(UserError):
            nearest_epochs(target, lambda epochs: slope * epochs if epochs > 0 else None)
        return
    found = nearest_epochs(target, lambda epochs: slope * epochs if epochs > 0 else None)
    assert abs(slope * found - target) <= slope / 2 * (1 + 1e-9)


def test_epochs_that_are_too_few_for_the_method_are_passed_over():
    assert nearest_epochs(10, lambda epochs: None if epochs < 7 else float(epochs)) == 10


def test_a_budget_below_the_methods_least_is_refused():
    with pytest.raises(UserError, match="3 is too little: the least is 7"):
        nearest_epochs(3, lambda epochs: None if epochs < 7 else float(epochs))


def test_a_method_that_is_never_possible_is_refused():
    with pytest.raises(UserError, match="no number of epochs"):
        nearest_epochs(3, lambda epochs: None)
