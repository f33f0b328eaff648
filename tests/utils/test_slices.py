"""Slices of rows, against scikit-learn's and by what they promise."""

import numpy as np
import pytest
from sklearn.utils import gen_batches

from sklearn_subquad._utils.slices import batches, spaced_rows


@pytest.mark.parametrize(("n", "size"), [(1, 1), (1, 5), (5, 5), (6, 5), (10, 5), (11, 3), (4097, 4096)])
def test_batches_are_those_of_scikit_learn(n, size):
    assert list(batches(n, size)) == list(gen_batches(n, size))


def test_no_rows_have_no_batches():
    assert list(batches(0, 3)) == []


@pytest.mark.parametrize(("n", "most"), [(0, 3), (1, 3), (3, 3), (4, 3), (7, 3), (1025, 1024), (9000, 4096)])
def test_spaced_rows_are_at_equal_distances_and_not_too_many(n, most):
    rows = np.arange(n)[spaced_rows(n, most)]
    assert len(rows) <= most
    assert len(rows) == n or len(rows) > most / 2
    assert len(set(np.diff(rows))) <= 1
