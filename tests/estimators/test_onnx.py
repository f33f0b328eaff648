"""ONNX models of fitted estimators predict what the estimators do."""

import pathlib
import sys

import numpy as np
import pandas as pd
import polars as pl
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
    inputs = {"X": X} if isinstance(X, np.ndarray) and X.dtype != object else by_column(session, X)
    return dict(zip(names, session.run(names, inputs), strict=True))


def by_column(session, table):
    """The inputs of a model of categories, one for every column of a frame or of an array of objects."""
    declared = session.get_inputs()
    if isinstance(table, pl.DataFrame):
        table = table.to_pandas()
    if isinstance(table, np.ndarray):
        table = pd.DataFrame(table, columns=[f"x{number}" for number in range(table.shape[1])])
    assert [each.name for each in declared] == table.columns.to_list()
    assert all(each.shape == ["n_samples", 1] for each in declared)
    types = {"tensor(float)": np.float32, "tensor(double)": np.float64}
    return {
        each.name: np.array(list(map(text_of, table[each.name])), dtype=object).reshape(-1, 1)
        if each.type == "tensor(string)"
        else table[[each.name]].replace("", None).to_numpy(dtype=types[each.type], na_value=np.nan)
        for each in declared
    }


def text_of(value):
    """A level as the docstring of `to_onnx` asks for it."""
    if pd.isna(value):
        return ""
    return str(value) if isinstance(value, str) or value % 1 else str(int(value))


def assert_same(model, X, **options):
    """Same types, shapes and, to the rounding of the network, numbers; for one row and for many."""
    network = next(model._models())[0]
    tolerance = 2e-5 if options.get("dtype") == "float32" or network.dtype == np.float32 else 1e-10
    if isinstance(X, np.ndarray) and X.dtype != object:
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


# ---- categories -----------------------------------------------------------------------------------------------------

N = 120
rng = np.random.default_rng(0)
number, codes = rng.standard_normal(N), rng.integers(0, 4, N)
few = np.array(["north", "süd", "a b"])[rng.integers(0, 3, N)]
many = np.array([f"level {i}" for i in rng.integers(0, 30, N)])
gap = rng.random(N) < 0.2
signal = number + (few == "süd") + codes % 2 + 0.1 * rng.standard_normal(N)


def frame(column, **others):
    return pd.DataFrame({"x": number, "hours-per-week": column} | others)


TABLES = {
    "few levels": frame(few),
    "two levels": frame(np.where(number > 0, "yes", "no")),
    "one level": frame("same"),
    "no level": frame(pd.Series([None] * N, dtype=object)),
    "many levels": frame(many),
    "a level of every row": frame([f"id{i}" for i in range(N)]),
    "many levels alone": pd.DataFrame({"many": many, "more": many[::-1]}),
    "all kinds": frame(few, many=many, two=np.where(codes > 1, "a", "b"), y=number[::-1], more=many[::-1]),
    "gaps everywhere": pd.DataFrame(
        {
            "few": np.where(gap, None, few),
            "x": np.where(gap[::-1], np.nan, number),
            "two": np.where(gap, None, np.where(codes > 1, "a", "b")),
            "many": np.where(gap[::-1], "", many),
        }
    ),
    "truth values": frame(few, true=number > 0),
    "a category of integers": frame(pd.Categorical(codes)),
    "a category of decimals": frame(pd.Categorical(codes / 2)),
    "a category of truth values": frame(pd.Categorical(codes > 1), few=few),
    "nullable integers": frame(few, i=pd.array([None if g else i for g, i in zip(gap, codes, strict=True)], "Int64")),
    "numbers as text": frame(few, text=[f"{value:.3f}" for value in number]),
    "names of values": frame(few, constant_0=few, value_0_0=number[::-1], constant_3_=many),
    "a frame of polars": pl.DataFrame({"x": number, "few": few, "many": np.where(gap, None, many)}),
    "an array of objects": frame(np.where(gap, None, few), many=many).to_numpy(dtype=object),
}


def targets(kind):
    return {
        "regression": signal,
        "several outputs": np.column_stack([signal, signal**2, -signal]),
        "two classes": signal > 0.5,
        "three classes": np.digitize(signal, [0, 1]),
        "several labels": np.column_stack([signal > 0, signal > 1]),
    }[kind]


def fitted_to(table, kind="regression", **options):
    estimator_class = SubquadMLPRegressor if targets(kind).dtype == float else SubquadMLPClassifier
    if isinstance(table, np.ndarray):
        options |= {"categorical_features": [False, True, True]}
    return small(estimator_class, **{"max_iter": 2} | options).fit(table, targets(kind))


def unknown(table):
    """The same rows without what the fit knows: words that are levels turned, and gaps."""
    words = {"few", "many", "more", "hours-per-week"}
    if isinstance(table, pl.DataFrame):
        return table.with_columns(few=pl.lit("unknown"), many=pl.lit(None, dtype=pl.String))
    if isinstance(table, np.ndarray):
        return np.where([False, True, True], "unknown", table)
    names = [name for name in table if name in words]
    return table.astype(dict.fromkeys(names, object)).assign(**{name: ["new", None] * (N // 2) for name in names})


@pytest.mark.parametrize("options", [{}, {"n_folds": 3, "n_bins": 4}], ids=["one network", "three"])
@pytest.mark.parametrize("name", TABLES)
def test_categories(name, options):
    model = fitted_to(TABLES[name], **options)
    assert_same(model, TABLES[name])
    assert_same(model, unknown(TABLES[name]))


@pytest.mark.parametrize("options", [{}, {"n_folds": 3, "n_bins": 4, "precision": "double"}], ids=["single", "double"])
@pytest.mark.parametrize("kind", ["several outputs", "two classes", "three classes", "several labels"])
def test_categories_of_other_targets(kind, options):
    for name in ("all kinds", "gaps everywhere"):
        model = fitted_to(TABLES[name], kind, **options)
        assert_same(model, TABLES[name])
        assert_same(model, unknown(TABLES[name]))


@pytest.mark.parametrize("name", ["few levels", "all kinds"])
def test_categories_beside_numbers_in_single_precision(name):
    table = TABLES[name].astype({each: np.float32 for each in ("x", "y") if each in TABLES[name]})
    assert_same(fitted_to(table, n_bins=4), table, dtype="float32")


def test_categories_of_parts():
    model = small(SubquadMLPRegressor, n_bins=4)
    for rows in (slice(0, 60), slice(60, N)):
        model.partial_fit(TABLES["gaps everywhere"][rows], signal[rows])
    assert_same(model, TABLES["gaps everywhere"])


def test_numbers_are_categories_where_they_are_named():
    X = np.column_stack([number, codes])
    model = small(SubquadMLPRegressor, categorical_features=[1]).fit(X, signal)
    assert_same(model, X.astype(object))


def test_models_of_categories_have_an_input_for_every_column():
    pytest.importorskip("onnx")
    proto = to_onnx(fitted_to(TABLES["all kinds"]), dtype="float32")
    kinds = {each.name: each.type.tensor_type.elem_type for each in proto.graph.input}
    # 1 is the type of single numbers, 8 of strings.
    assert kinds == {"x": 1, "hours-per-week": 8, "many": 8, "two": 8, "y": 1, "more": 8}
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 19)]


@pytest.mark.parametrize(
    ("kind", "name"), [("regression", "predictions"), ("two classes", "label"), ("two classes", "")]
)
def test_columns_that_cannot_be_inputs_are_named(kind, name):
    model = fitted_to(frame(few, **{name: number}), kind)
    with pytest.raises(ValueError, match=f"{type(model).__name__} was fitted to categories.*'{name}'.*: rename"):
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
