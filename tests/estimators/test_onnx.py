"""ONNX models of fitted estimators predict what the estimators do."""

import pathlib
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from small_fits import classification_data, data_for_loss, regression_data, small
from test_stored_estimators import FORMATS, STORED, load, with_metric

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad.onnx import to_onnx

pytestmark = pytest.mark.usefixtures("one_blas_thread")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(model, X, **options):
    """What onnxruntime makes of rows, by the names of the outputs."""
    onnx = pytest.importorskip("onnx", reason="ONNX models need onnx: pip install '.[test]'")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime: pip install '.[test]'")
    proto = to_onnx(model, **options)
    onnx.checker.check_model(proto, full_check=True)
    # No operators but those of the standard.
    assert {node.domain for node in proto.graph.node} == {""}
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = runtime.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"X": X}), strict=True))


def assert_same(model, X, **options):
    """Same types, shapes and, to the rounding of the network, numbers; for one row and for many."""
    network = next(model._models())[0]
    tolerance = 2e-5 if options.get("dtype") == "float32" or network.dtype == np.float32 else 1e-10
    X = X.astype(options.get("dtype", "float64"))
    for rows in (X, X[:1]):
        found = run(model, rows, **options)
        if isinstance(model, SubquadMLPRegressor):
            expected = {"predictions": model.predict(rows)}
        else:
            expected = {"label": model.predict(rows), "probabilities": model.predict_proba(rows)}
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert found[name].shape == values.shape
            if name == "label":
                np.testing.assert_array_equal(found[name], values)
            else:
                assert found[name].dtype == values.dtype
                scale = np.abs(values).max()
                np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance * scale)


COMMON = {
    "defaults": {},
    "three networks": {"n_folds": 3},
    "ramps": {"n_bins": 4},
    "alternating ramps": {"n_folds": 3, "n_bins": "auto"},
    "one layer": {"hidden_layer_sizes": 40},
    "three layers": {"hidden_layer_sizes": (40, 70, 33)},
    "topk": {"sparsifier": "topk", "density": 0.1},
    "mirrored topk": {"sparsifier": "topk", "init_scale": 1.0},
    "no skip connections": {"skip_connections": False},
    "topk without": {"sparsifier": "topk", "skip_connections": False, "n_folds": 3},
    "as they are": {"standardize": False, "n_bins": 3},
    "double": {"precision": "double", "n_bins": 4},
    "double topk": {"precision": "double", "sparsifier": "topk", "n_folds": 3},
    "not stopped": {"early_stopping": False},
    "loo": {"early_stopping": "loo", "precision": "double"},
}
EVERY_CASE = pytest.mark.parametrize("options", COMMON.values(), ids=COMMON)


@EVERY_CASE
@pytest.mark.parametrize("n_outputs", [None, 3])
def test_regression(options, n_outputs):
    X, y = regression_data(120, n_outputs=n_outputs)
    assert_same(small(SubquadMLPRegressor, **options).fit(X, 100 * y + 7), X)


@EVERY_CASE
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes(options, n_classes):
    X, y = classification_data(120, n_classes=n_classes)
    assert_same(small(SubquadMLPClassifier, **options).fit(X, y), X)


@pytest.mark.parametrize("n_folds", [1, 3])
@pytest.mark.parametrize(("loss", "k"), [("log_loss", 2), ("log_loss", 4), ("poisson", None), ("poisson", 3)])
def test_other_losses(loss, k, n_folds):
    X, y = data_for_loss(loss, k, n=120)
    estimator_class = SubquadMLPClassifier if loss == "log_loss" else SubquadMLPRegressor
    assert_same(small(estimator_class, loss=loss, n_folds=n_folds, n_bins=4).fit(X, y), X)
    assert_same(small(estimator_class, loss=loss, early_stopping=False, precision="double").fit(X, y), 1000 * X)


@pytest.mark.parametrize("options", [{}, {"loss": "log_loss"}, {"n_folds": 3}, {"early_stopping": False}])
def test_labels_of_which_rows_have_any_number(options):
    X, y = regression_data(120, n_outputs=3)
    assert_same(small(SubquadMLPClassifier, **options).fit(X, y > 0.2), X)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "names",
    [
        np.array(["no", "yes", "perhaps"]),
        np.array(["no", "yes", "perhaps"], dtype=object),
        np.array([-5, 3, 40]),
        np.array([1, 2, 200], dtype=np.uint8),
        np.array([0.0, 1.0, 5.0]),
    ],
    ids=["strings", "objects", "integers", "bytes", "floats"],
)
def test_classes_of_any_type(names, n_classes):
    X, y = classification_data(120, n_classes=n_classes)
    model = small(SubquadMLPClassifier, max_iter=2).fit(X, names[y])
    assert_same(model, X)
    assert run(model, X)["label"].dtype.kind == ("O" if names.dtype.kind in "UO" else names.dtype.kind)


def test_classes_that_are_true_or_false():
    X, y = classification_data(120, n_classes=2)
    assert_same(small(SubquadMLPClassifier, max_iter=2).fit(X, y == 1), X)


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32])
@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_types_of_the_input(estimator_class, precision, dtype):
    X, y = (regression_data if estimator_class is SubquadMLPRegressor else classification_data)(120)
    model = small(estimator_class, precision=precision, n_bins=4, n_folds=3).fit(X, y)
    assert_same(model, X, dtype=np.dtype(dtype).name)
    assert run(model, X.astype(dtype), dtype=dtype).popitem()[1].dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_bins", [None, 4])
def test_features_of_all_kinds(n_bins, dtype):
    """Outliers, which are squashed; constant and rare ones, counts; neighbouring numbers; far from all of them."""
    X, y = regression_data(200, d=8)
    X[:, 1] = np.exp(3 * X[:, 1])
    X[:, 2], X[:, 3] = 0.1, np.arange(200) == 7
    X[:, 4] = np.round(X[:, 4])
    X[:, 5] = 1e6 * (1 + 1e-9 * np.round(X[:, 5]))
    model = small(SubquadMLPRegressor, n_bins=n_bins, n_folds=3).fit(X, y)
    assert np.isfinite(model.estimators_[0]._state_["squash_limit"]).sum() >= 1
    far = X * np.logspace(0, 30, 200)[:, None]
    constant_but_for_rounding = np.where(np.arange(8) == 2, X * (1 + 1e-16), X)
    for rows in (X, far, -far, constant_but_for_rounding):
        assert_same(model, rows, dtype=dtype)


@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
@pytest.mark.parametrize("n_features", [20, 200])
def test_models_of_sparse_rows_take_dense_ones(estimator_class, n_features):
    rng = np.random.default_rng(0)
    X = np.where(rng.random((120, n_features)) < 0.2, rng.standard_normal((120, n_features)), 0.0)
    y = X[:, :3].sum(axis=1)
    y = y if estimator_class is SubquadMLPRegressor else y > 0
    assert_same(small(estimator_class, n_folds=3).fit(csr_array(X), y), X)


def test_squashed_values_of_any_size():
    X, y = regression_data(120)
    X[0, 0] = 1e3
    model = small(SubquadMLPRegressor, precision="double").fit(X, y)
    X[:, 0] *= np.logspace(0, 300, 120)
    assert_same(model, X)


def test_targets_that_single_precision_cannot_tell_apart():
    X, y = regression_data(120)
    model = small(SubquadMLPRegressor).fit(X.astype(np.float32), 1.7e9 + 1e3 * y)
    assert run(model, X.astype(np.float32), dtype="float32")["predictions"].dtype == np.float64
    assert_same(model, X, dtype="float32")


def test_constant_targets():
    X, Y = regression_data(120, n_outputs=2)
    Y[:, 1] = 3.0
    model = small(SubquadMLPRegressor, n_folds=3).fit(X, Y)
    assert_same(model, X)
    np.testing.assert_array_equal(run(model, X)["predictions"][:, 1], 3.0)


@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_parts(estimator_class):
    X, y = (regression_data if estimator_class is SubquadMLPRegressor else classification_data)(120)
    options = {} if estimator_class is SubquadMLPRegressor else {"classes": np.unique(y)}
    assert_same(small(estimator_class).partial_fit(X, y, **options), X)
    assert_same(small(estimator_class, n_folds=3).fit(X, y).partial_fit(X, y, **options), X)


@STORED
@FORMATS
def test_models_of_earlier_versions(name, form):
    with np.load(ROOT / "tests" / "data" / "expected.npz") as arrays:
        X = arrays["X"]
    model = load(name, form)
    assert_same(model, X, dtype="float32")
    metric = np.random.default_rng(0).standard_normal((len(model._state_["input_mean"]),) * 2)
    assert_same(with_metric(model, metric), X, dtype="float32")


def test_the_number_of_rows_is_free():
    onnx = pytest.importorskip("onnx")
    X, y = regression_data(120)
    proto = to_onnx(small(SubquadMLPRegressor, max_iter=1).fit(X, y))
    shapes = [
        [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in (proto.graph.input[0], proto.graph.output[0])
    ]
    assert shapes == [["n_samples", 5], ["n_samples"]]
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 17)]
    assert proto.producer_name == "sklearn_subquad"
    assert len(run(small(SubquadMLPRegressor, max_iter=1).fit(X, y), X[:0])["predictions"]) == 0
    assert onnx.load_from_string(proto.SerializeToString()) == proto


def test_exporting_changes_nothing():
    pytest.importorskip("onnx")
    X, y = regression_data(120)
    model = small(SubquadMLPRegressor, n_folds=3, n_bins=4).fit(X, y)
    before = model.predict(X)
    assert to_onnx(model).SerializeToString() == to_onnx(model).SerializeToString()
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
@pytest.mark.parametrize("fitted_to_gaps", [True, False])
@pytest.mark.parametrize(("n_bins", "dtype"), [(None, "float64"), (4, "float32"), (4, "float64")])
def test_gaps(estimator_class, fitted_to_gaps, n_bins, dtype):
    X, y = regression_data(120)
    X[::10, 3] = 1e4
    holes = X.copy()
    holes[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    holes[:, 4] = X[:, 4]
    y = y if estimator_class is SubquadMLPRegressor else y > 0
    model = small(estimator_class, n_bins=n_bins, n_folds=3).fit(holes if fitted_to_gaps else X, y)
    holes[:5, 4] = np.nan
    assert_same(model, holes, dtype=dtype)
    assert_same(model, X, dtype=dtype)


def test_categories_are_not_exported_and_named():
    X, y = regression_data(60)
    X = pd.DataFrame(X, columns=list("abcde")).assign(b=np.array(list("uvw"))[np.arange(60) % 3])
    model = small(SubquadMLPRegressor).fit(X, y)
    with pytest.raises(ValueError, match=r"SubquadMLPRegressor was fitted to categories.*\['b'\]"):
        to_onnx(model)
    model = small(SubquadMLPRegressor, categorical_features=[2]).fit(np.round(X.drop(columns="b").to_numpy()), y)
    with pytest.raises(ValueError, match=r"\[2\]"):
        to_onnx(model)


def test_without_onnx_an_error_says_what_to_install(monkeypatch):
    X, y = regression_data(40)
    model = small(SubquadMLPRegressor, max_iter=1).fit(X, y)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn_subquad\[onnx\]"'):
        to_onnx(model)


def test_what_cannot_be_exported_is_named():
    X, y = classification_data(40)
    with pytest.raises(NotFittedError):
        to_onnx(SubquadMLPClassifier())
    with pytest.raises(TypeError, match="SubquadMLPClassifier, got LinearRegression"):
        to_onnx(LinearRegression().fit(X, y))
    dates = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[D]")[y]
    with pytest.raises(TypeError, match=r"classes are of type datetime64\[D\].*astype\(str\)"):
        to_onnx(small(SubquadMLPClassifier, max_iter=1).fit(X, dates))
    model = small(SubquadMLPClassifier, max_iter=1).fit(X, y)
    for dtype in ("float16", int, None):
        with pytest.raises(ValueError, match="dtype of to_onnx must be 'float32' or 'float64'"):
            to_onnx(model, dtype=dtype)
