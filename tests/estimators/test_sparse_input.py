"""Sparse features: the same as the dense ones, row for row."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _memory, _predictor
from sklearn_subquad._network.network import Network

SETTINGS = {"hidden_layer_sizes": (32, 32), "max_iter": 3, "n_folds": 1, "random_state": 0}
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
KINDS = [sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.lil_array]


def data(dtype=np.float64, n=150):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 8)) * (rng.uniform(size=(n, 8)) < 0.3)
    return X.astype(dtype), (X[:, 0] + X[:, 1] > 0.1).astype(int)


@BOTH
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_sparse_rows_are_dense_ones(estimator_class, kind, dtype):
    X, y = data()
    X = (2 * X).round().astype(dtype) if dtype == np.int64 else X.astype(dtype)
    dense, found = (estimator_class(**SETTINGS).fit(rows, y) for rows in (X, kind(X)))
    assert found.predict(kind(X)).tobytes() == dense.predict(X).tobytes()
    assert found.predict(X).dtype == dense.predict(X).dtype
    assert found.loss_curve_ == dense.loss_curve_
    if estimator_class is SubquadMLPRegressor:
        for sparse_part, dense_part in zip(
            found.predict(kind(X), return_std=True), dense.predict(X, return_std=True), strict=True
        ):
            assert sparse_part.tobytes() == dense_part.tobytes()


@BOTH
def test_only_a_part_of_the_rows_is_made_dense_to_predict(estimator_class, monkeypatch):
    X, y = data()
    model = estimator_class(precision="double", **SETTINGS).fit(X, y)
    expected = model.predict(X)
    parts, densified = [], _predictor.densified
    monkeypatch.setattr(Network, "row_batches", lambda self, n: [slice(0, 100), slice(100, n)])
    monkeypatch.setattr(_predictor, "densified", lambda rows: parts.append(rows.shape) or densified(rows))
    np.testing.assert_array_equal(model.predict(sparse.csr_array(X)), expected)
    assert parts == [(100, 8), (50, 8)]


@BOTH
def test_what_does_not_fit_is_refused_before_it_is_made(estimator_class, monkeypatch):
    X, y = data()
    monkeypatch.setattr(_memory, "available_bytes", lambda: 150 * 8 * 8 - 1)
    model = estimator_class(**SETTINGS)
    with pytest.raises(MemoryError, match=r"its 150 rows of 8 features are made dense .*TruncatedSVD. 9,600"):
        model.fit(sparse.csr_array(X), y)
    with pytest.raises(NotFittedError):
        model.predict(X)


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stored_values_are_checked(estimator_class, value):
    X, y = data()
    X[3, 2] = value
    with pytest.raises(ValueError, match="Input X contains"):
        estimator_class(**SETTINGS).fit(sparse.csr_array(X), y)
