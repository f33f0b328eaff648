"""Estimators as notebooks show them."""

import re
from email.message import Message

import pytest
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _persistence

ESTIMATORS = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])


def links(html, name):
    """Addresses of links whose text speaks of the documentation of `name`."""
    return re.findall(rf'href="([^"]+)"[^>]*>\?<span>Documentation for {name}</span>', html)


@ESTIMATORS
def test_unfitted_and_fitted_estimators_show_their_parameters(estimator_class):
    X, y = load_iris(return_X_y=True)
    model = estimator_class(hidden_layer_sizes=(48, 32), max_iter=1, random_state=7)
    unfitted, counterpart = estimator_html_repr(model), estimator_html_repr(StandardScaler())
    fitted = estimator_html_repr(model.fit(X, y))
    for html in (unfitted, fitted, model._repr_mimebundle_()["text/html"]):
        assert estimator_class.__name__ in html
        # Since scikit-learn 1.7 with all parameters, before with those that differ from the default.
        for parameter in model.get_params() if "with_mean" in counterpart else ["max_iter"]:
            assert parameter in html
        assert "(48, 32)" in html
    assert "Not fitted" in unfitted
    assert "Not fitted" not in fitted
    assert "Fitted" in fitted


@ESTIMATORS
def test_a_pipeline_shows_its_estimator(estimator_class):
    assert estimator_class.__name__ in estimator_html_repr(make_pipeline(StandardScaler(), estimator_class()))


@pytest.mark.parametrize(
    "entries", [[], ["Source, https://example.org/code"], ["Documentation, https://example.org/doc/"]]
)
@ESTIMATORS
def test_there_is_a_link_where_the_distribution_names_its_documentation(estimator_class, entries, monkeypatch):
    metadata = Message()
    for entry in ["Homepage, https://example.org", *entries]:
        metadata["Project-URL"] = entry
    monkeypatch.setattr(_persistence, "metadata", lambda name: metadata)
    name = estimator_class.__name__
    expected = [f"https://example.org/doc/generated/sklearn_subquad.{name}.html"] if "doc/" in str(entries) else []
    html = estimator_html_repr(estimator_class())
    assert links(html, name) == expected
    assert ("Documentation for" in html) == bool(expected)


def test_without_any_address_there_is_no_link(monkeypatch):
    monkeypatch.setattr(_persistence, "metadata", lambda name: Message())
    assert "Documentation for" not in estimator_html_repr(SubquadMLPRegressor())


def test_scikit_learns_own_estimators_keep_theirs():
    html = estimator_html_repr(make_pipeline(StandardScaler(), SubquadMLPRegressor()))
    assert [address.split("/")[2] for address in links(html, "StandardScaler")] == ["scikit-learn.org"]
