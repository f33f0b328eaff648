"""The estimators among scikit-learn's tools: pipelines, searches, clones, data frames."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from small_fits import BOTH, data_for, small

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@BOTH
def test_pipeline_with_scaler(estimator_class):
    X, y = data_for(estimator_class)
    pipeline = make_pipeline(StandardScaler(), small(estimator_class)).fit(X, y)
    assert pipeline.predict(X).shape == y.shape
    assert pipeline.score(X, y) > 0.5


@BOTH
def test_pipeline_with_column_transformer_on_a_data_frame(estimator_class):
    X, y = data_for(estimator_class)
    frame = pd.DataFrame(X, columns=list("abcde")).assign(colour=np.where(X[:, 0] > 0, "red", "blue"))
    columns = ColumnTransformer([("numbers", StandardScaler(), list("abcde")), ("rest", OneHotEncoder(), ["colour"])])
    pipeline = make_pipeline(columns, small(estimator_class)).fit(frame, y)
    assert pipeline[-1].n_features_in_ == 7
    assert pipeline.score(frame, y) > 0.5


@BOTH
def test_feature_names_are_remembered(estimator_class):
    X, y = data_for(estimator_class)
    frame = pd.DataFrame(X, columns=list("abcde"))
    estimator = small(estimator_class).fit(frame, pd.Series(y))
    assert list(estimator.feature_names_in_) == list("abcde")
    assert estimator.n_features_in_ == 5
    assert estimator.predict(frame).shape == y.shape


@BOTH
def test_feature_names_are_forgotten_by_a_fit_without_them(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class).fit(pd.DataFrame(X, columns=list("abcde")), y).fit(X, y)
    assert not hasattr(estimator, "feature_names_in_")


@BOTH
def test_grid_search_in_parallel(estimator_class):
    X, y = data_for(estimator_class)
    grid = [
        {"density": [0.1, (0.3, 0.2)], "max_rank": [0, "auto"]},
        {"preconditioner": ["gram", "sketch", "none"], "sketch_size": [20, "auto"]},
    ]
    estimator = small(estimator_class, hidden_layer_sizes=(32, 32), max_iter=2)
    search = GridSearchCV(estimator, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
    assert search.best_estimator_.predict(X).shape == y.shape


@BOTH
def test_clone_and_parameters_round_trip(estimator_class):
    estimator = small(estimator_class, density=(0.1, 0.2), damping=0.5)
    copy = clone(estimator)
    assert copy is not estimator
    assert copy.get_params() == estimator.get_params()
    assert copy.set_params(damping=2.0).get_params() == estimator.get_params() | {"damping": 2.0}
    assert estimator.damping == 0.5


@BOTH
def test_fit_does_not_change_parameters_or_data(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class, hidden_layer_sizes=[64, 32])
    before = joblib.hash((estimator.get_params(), X, y))
    assert estimator.fit(X, y) is estimator
    assert joblib.hash((estimator.get_params(), X, y)) == before


@BOTH
def test_score_weighs_rows(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class).fit(X, y)
    weights = (np.arange(80) < 40).astype(float)
    assert estimator.score(X, y, sample_weight=weights) == pytest.approx(estimator.score(X[:40], y[:40]))
