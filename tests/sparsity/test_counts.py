from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbench.sparsity.counts import zeros_of


@given(numel=st.integers(0, 10**8), thousandths=st.integers(0, 1000))
def test_zeros_are_the_floor_of_the_decimal_product(numel, thousandths):
    sparsity = thousandths / 1000
    assert zeros_of(numel, 1 - sparsity) == thousandths * numel // 1000


@given(numel=st.integers(1, 10**8), zeros=st.integers(0, 10**8))
def test_a_density_that_means_a_count_gives_that_count(numel, zeros):
    zeros = min(zeros, numel)
    assert zeros_of(numel, (numel - zeros) / numel) == zeros


@pytest.mark.parametrize(("density", "zeros"), [(1.0 + 1e-9, 0), (-0.5, 7), (0.5, 3)])
def test_zeros_lie_between_none_and_all(density, zeros):
    assert zeros_of(7, density) == zeros
