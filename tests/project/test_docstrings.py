"""The examples in the public docstrings run."""

import doctest

import pytest

from sklearn_subquad import _classifier, _regressor


@pytest.mark.parametrize("module", [_classifier, _regressor])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
