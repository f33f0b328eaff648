"""Sparse features stay sparse, and give what the dense ones give, to rounding."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.data import distinct_rows, rows_of
from sklearn_subquad._fit.scaling import InputScaling
from sklearn_subquad._linalg.features import SparseFeatures
from sklearn_subquad._linalg.row_span import SpannedWeights
from sklearn_subquad._network.network import Network

SETTINGS = {
    "hidden_layer_sizes": (24, 20),
    "max_iter": 2,
    "n_folds": 1,
    "precision": "double",
    "cg_tol": 1e-10,
    "random_state": 0,
}
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
KINDS = [sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.lil_array]
# Fewer features than rows, and more: then weights are combinations of the rows.
NARROW, WIDE = 12, 260


def data(estimator_class=SubquadMLPRegressor, d=NARROW, n=150, n_outputs=1):
    """Rows of mostly zeros; among them an empty one, and columns that are empty, constant, far from zero, outlying."""
    rng = np.random.default_rng(0)
    X = rng.exponential(size=(n, d)) * (rng.uniform(size=(n, d)) < 0.25)
    X[:, 3], X[7], X[:, 2], X[:, 4] = 0, 0, 3.0, 1000 + rng.standard_normal(n)
    X[11, 1] = 500.0
    Y = np.sin(X[:, [0]]) * np.arange(1, n_outputs + 1) + X[:, 5:9] @ rng.standard_normal((4, n_outputs))
    Y += 0.1 * rng.standard_normal(Y.shape)
    if estimator_class is SubquadMLPClassifier:
        return X, (np.median(Y, axis=0) < Y).astype(int) if n_outputs > 2 else np.digitize(Y[:, 0], [0, 0.5, 1])
    return X, Y if n_outputs > 1 else Y[:, 0]


def outputs(model, X):
    """All that a model says of rows, as one array."""
    if isinstance(model, SubquadMLPClassifier):
        return np.array(model.predict_proba(X)).ravel()
    if model._networks()[0]["_state_"]["laplace"] is None:
        return model.predict(X).ravel()
    return np.concatenate([each.ravel() for each in model.predict(X, return_std=True)])


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def assert_same(found, dense, X):
    """Two models say the same of rows in either form."""
    expected = outputs(dense, X)
    assert found.n_iter_ == dense.n_iter_
    for model in (found, dense):
        for rows in (X, sparse.csr_array(X)):
            assert_near(outputs(model, rows), expected)


@BOTH
@pytest.mark.parametrize("d", [NARROW, WIDE])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"early_stopping": "loo"},
        {"early_stopping": False, "batch_size": 40},
        {"n_folds": 2, "n_bins": "auto"},
        {"n_bins": 4},
        {"standardize": False},
        {"init": "gaussian"},
        {"init_scale": 1.0, "skip_connections": False},
        {"sparsifier": "topk"},
        {"preconditioner": "sketch", "sketch": "tensor_sketch"},
        {"preconditioner": "none", "max_cg_iter": 500},
        {"scoring": lambda model, X, y: -np.square(model.predict(X) - y).mean()},
    ],
    ids=lambda parameters: "-".join(parameters) or "defaults",
)
def test_fits_are_those_of_dense_rows(estimator_class, d, parameters):
    X, y = data(estimator_class, d)
    if parameters.get("early_stopping") == "loo" and estimator_class is SubquadMLPClassifier:
        parameters = parameters | {"loss": "squared_error"}
    model = estimator_class(**SETTINGS | parameters)
    found = clone(model).fit(sparse.csr_array(X), y)
    assert_same(found, clone(model).fit(X, y), X)
    spanned = isinstance(next(found._models())[0].layers[0].input_weights, SpannedWeights)
    assert spanned == (d == WIDE)


@BOTH
@pytest.mark.parametrize("d", [NARROW, WIDE])
@pytest.mark.parametrize("n_outputs", [3, 5])
def test_weights_and_several_outputs(estimator_class, d, n_outputs):
    X, Y = data(estimator_class, d, n_outputs=n_outputs)
    weights = np.random.default_rng(1).integers(0, 4, len(Y))
    # What is left of an inner solve that ends early depends on rounding.
    model = estimator_class(batch_size=60, max_cg_iter=500, **SETTINGS)
    assert_same(clone(model).fit(sparse.csr_array(X), Y, weights), clone(model).fit(X, Y, weights), X)


@BOTH
@pytest.mark.parametrize("d", [NARROW, WIDE])
def test_a_validation_set_of_either_form(estimator_class, d):
    X, y = data(estimator_class, d)
    fit, rest = slice(0, 100), slice(100, None)
    dense, *found = (
        estimator_class(**SETTINGS).fit(make(X[fit]), y[fit], X_val=make_val(X[rest]), y_val=y[rest])
        for make in (np.asarray, sparse.csr_array)
        for make_val in (np.asarray, sparse.csc_array)
    )
    for model in found:
        assert_same(model, dense, X)


@BOTH
@pytest.mark.parametrize("d", [NARROW, WIDE])
@pytest.mark.parametrize("makes", [(sparse.csr_array,) * 2, (sparse.csr_array, np.asarray)], ids=["sparse", "mixed"])
def test_fits_that_go_on(estimator_class, d, makes):
    X, y = data(estimator_class, d)
    settings = SETTINGS | {"early_stopping": False}
    first, then = makes
    warm, of_dense = estimator_class(warm_start=True, **settings), estimator_class(warm_start=True, **settings)
    assert_same(warm.fit(first(X), y).fit(then(X[::-1]), y[::-1]), of_dense.fit(X, y).fit(X[::-1], y[::-1]), X)
    parts, of_dense = estimator_class(**SETTINGS), estimator_class(**SETTINGS)
    classes = {} if estimator_class is SubquadMLPRegressor else {"classes": np.unique(y)}
    for number, rows in enumerate(np.array_split(np.arange(len(y)), 3)):
        # Columns that were constant so far get weights when they vary.
        parts.partial_fit((first, then)[number % 2](X[rows]), y[rows], **classes)
        of_dense.partial_fit(X[rows], y[rows], **classes)
    assert_same(parts, of_dense, X)


def disorderly(X):
    """The same rows with entries out of order, in two halves each, with stored zeros and 64-bit read-only indices."""
    halves = sparse.coo_array((X / 2).astype(X.dtype))
    empty = np.argwhere(X == 0)[::7]
    columns = np.concatenate([halves.col, halves.col, empty[:, 1]])
    rows = np.concatenate([halves.row, halves.row, empty[:, 0]])
    values = np.concatenate([halves.data, halves.data, np.zeros(len(empty), dtype=X.dtype)])
    order = np.lexsort((np.random.default_rng(0).random(len(rows)), rows))
    indptr = np.cumsum(np.append(0, np.bincount(rows, minlength=len(X))))
    out = sparse.csr_array((values[order], columns[order].astype(np.int64), indptr.astype(np.int64)), shape=X.shape)
    assert not out.has_canonical_format
    assert out.indices.dtype == np.int64
    for part in (out.data, out.indices, out.indptr):
        part.flags.writeable = False
    return out


@BOTH
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, np.float64) for kind in [*KINDS, disorderly]), (sparse.csr_array, np.float32), (disorderly, np.int64)],
)
def test_every_kind_of_matrix(estimator_class, kind, dtype):
    X, y = data(estimator_class)
    X = (2 * X).round().astype(dtype) if dtype == np.int64 else X.astype(dtype)
    # Halves of integers are none.
    X *= 2 if kind is disorderly else 1
    rows = kind(X)
    found, dense = (estimator_class(**SETTINGS).fit(made, y) for made in (rows, X))
    assert (rows != kind(X)).nnz == 0
    expected = outputs(dense, X)
    np.testing.assert_allclose(outputs(found, rows), expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert found.predict(rows).dtype == dense.predict(X).dtype


@BOTH
def test_rows_that_are_equal_are_one(estimator_class):
    X, y = data(estimator_class)
    twice, targets = np.concatenate([X, X[::-1], X[:20]]), np.concatenate([y, y[::-1], y[:20]])
    model = estimator_class(**SETTINGS)
    assert_same(clone(model).fit(sparse.csr_array(twice), targets), clone(model).fit(twice, targets), X)


def test_equal_rows_are_found_whatever_is_stored():
    X = np.repeat(data(n=2000)[0].round(), 2, axis=0)[:3001]
    Y = np.arange(3001)[:, np.newaxis] // 2 % 3
    for kind in (sparse.csr_array, disorderly):
        for found, expected in zip(distinct_rows(rows_of(kind(2 * X)), Y), distinct_rows(X, Y), strict=True):
            np.testing.assert_array_equal(found, expected)


@BOTH
@pytest.mark.parametrize("d", [NARROW, WIDE])
def test_no_row_is_made_dense(estimator_class, d, monkeypatch):
    """Network inputs are dense in the panels of a sketch alone, and where effective dimensions are counted."""
    X, y = data(estimator_class, d)
    found, made = [], InputScaling.transform

    def transform(self, X, *dtype):
        found.append(made(self, X, *dtype))
        return found[-1]

    monkeypatch.setattr(InputScaling, "transform", transform)
    monkeypatch.setattr(SparseFeatures, "to_array", lambda x: pytest.fail("dense") if len(x) > 64 else made_dense(x))
    model = estimator_class(**SETTINGS | {"init_scale": 0.1}).fit(sparse.csr_array(X), y)
    outputs(model, sparse.csr_array(X))
    assert all(isinstance(x, SparseFeatures) for x in found)


made_dense = SparseFeatures.to_array


@BOTH
@pytest.mark.parametrize("d", [NARROW, WIDE])
def test_predictions_do_not_depend_on_how_rows_are_parted(estimator_class, d, monkeypatch):
    X, y = data(estimator_class, d)
    model = estimator_class(**SETTINGS).fit(sparse.csr_array(X), y)
    expected = outputs(model, sparse.csr_array(X))
    monkeypatch.setattr(Network, "row_batches", lambda self, n: [slice(0, 100), slice(100, n)])
    assert_near(outputs(model, sparse.csr_array(X)), expected)


@BOTH
def test_weights_of_wide_rows_are_those_of_dense_ones(estimator_class):
    X, y = data(estimator_class, WIDE)
    found, dense = (estimator_class(**SETTINGS).fit(rows, y) for rows in (sparse.csr_array(X), X))
    for ours, theirs in zip(found.coefs_ + found.intercepts_, dense.coefs_ + dense.intercepts_, strict=True):
        assert_near(ours, theirs)
    assert_near(outputs(pickle.loads(pickle.dumps(found)), X), outputs(dense, X))


@BOTH
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "X is sparse and holds NaN"), (np.inf, r"X contains infinity in.*2")]
)
def test_stored_values_are_checked(estimator_class, value, message):
    X, y = data(estimator_class)
    X[3, 2] = value
    with pytest.raises(ValueError, match=message):
        estimator_class(**SETTINGS).fit(sparse.csr_array(X), y)


@BOTH
@pytest.mark.parametrize("n_features", [NARROW, WIDE])
@pytest.mark.parametrize("n_bins", [None, 4])
def test_an_array_with_gaps_may_follow_sparse_rows(estimator_class, n_features, n_bins):
    """To predict, and to say when to stop."""
    X, y = data(estimator_class, n_features)
    holes = X.copy()
    holes[::7, 1] = np.nan
    found, dense = (
        estimator_class(**SETTINGS | {"n_bins": n_bins}).fit(rows, y, X_val=holes, y_val=y)
        for rows in (sparse.csr_array(X), X)
    )
    assert_near(outputs(found, holes), outputs(dense, holes))


@BOTH
def test_sparse_rows_may_follow_an_array_with_gaps(estimator_class):
    X, y = data(estimator_class)
    X[::7, 1] = np.nan
    model = estimator_class(**SETTINGS).fit(X, y)
    X = np.nan_to_num(X)
    assert_near(outputs(model, sparse.csr_array(X)), outputs(model, X))
