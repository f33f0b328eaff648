"""Held-out rows: sizes, strata, and models of classes with few rows."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sklearn_subquad import SubquadMLPClassifier
from sklearn_subquad._fit.held_out import split

SETTINGS = {"hidden_layer_sizes": (128, 128), "random_state": 0}
LOSSES = pytest.mark.parametrize("loss", ["squared_error", "log_loss"])


@pytest.mark.parametrize("kind", ["even", "skewed"])
@pytest.mark.parametrize("k", [2, 3, 8, 50])
@pytest.mark.parametrize("n", [3, 5, 20, 60, 150, 2000])
def test_every_class_of_two_rows_is_on_either_side(n, k, kind):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        codes = rng.integers(k, size=n) if kind == "even" else np.minimum(rng.geometric(0.4, n) - 1, k - 1)
        labels = codes[:, None] == np.arange(k)
        fitted, held_out = split(n, 0.1, rng, labels[:, 1:] if k == 2 else labels)
        assert np.array_equal(np.sort(np.concatenate([fitted, held_out])), np.arange(n))
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            n_held = np.count_nonzero(codes[held_out] == code)
            if count > 1:
                assert 1 <= n_held <= max(1, min(count - 1, np.ceil(0.1 * count) + 1))
            elif len(held_out) > 1:
                assert n_held == 0


@pytest.mark.parametrize("n", [2, 10, 99, 1000])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_without_labels_so_many_rows_are_held_out(n, fraction):
    fitted, held_out = split(n, fraction, np.random.default_rng(0))
    assert len(held_out) == min(n - 1, max(1, np.ceil(fraction * n)))
    assert np.array_equal(np.sort(np.concatenate([fitted, held_out])), np.arange(n))


def test_held_out_rows_are_drawn_evenly():
    """Over many draws every row is held out equally often."""
    rng, counts = np.random.default_rng(0), np.zeros(60)
    labels = np.repeat([False, True], [40, 20])[:, None]
    for _ in range(2000):
        counts[split(60, 0.1, rng, labels)[1]] += 1
    # Binomial of probability 0.1: four standard deviations.
    assert np.abs(counts - 200).max() < 4 * np.sqrt(2000 * 0.1 * 0.9)


@pytest.mark.parametrize("seed", range(5))
def test_every_label_of_several_has_its_share(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random((1000, 7)) < [0.003, 0.01, 0.05, 0.3, 0.5, 0.9, 0.997]
    _, held_out = split(1000, 0.1, rng, labels)
    assert 100 <= len(held_out) <= 104
    for sides in (labels, ~labels):
        counts, held = sides.sum(axis=0), sides[held_out].sum(axis=0)
        several = counts > 1
        assert (held[several] >= 1).all()
        assert (held[several] < counts[several]).all()
        # Labels overlap: what the rarer ones place counts for the others.
        assert np.abs(held - counts / 10)[several].max() <= 3


def rare_class(n, n_rare, kind):
    """Rows, and a class of few rows at the end of one feature; targets as words, numbers or several labels."""
    rng = np.random.default_rng(n_rare)
    X, new = rng.standard_normal((n, 4)), rng.standard_normal((3000, 4))
    rare = np.zeros(n, dtype=bool)
    rare[np.argsort(X[:, 0])[-n_rare:]] = True
    y = {"words": np.where(rare, "rare", "usual"), "numbers": np.where(rare, 7, 3)}
    y["labels"] = np.column_stack([rare, X[:, 1] > 0]).astype(int)
    return X, y[kind], new, new[:, 0] > X[rare, 0].min()


@LOSSES
@pytest.mark.parametrize("kind", ["words", "labels"])
@pytest.mark.parametrize("n_rare", [2, 3, 6])
@pytest.mark.parametrize("n", [60, 400])
def test_rare_classes_are_learned(n, n_rare, kind, loss):
    X, y, new, truth = rare_class(n, n_rare, kind)
    model = SubquadMLPClassifier(loss=loss, **SETTINGS).fit(X, y)
    assert model.best_iter_ > 0
    assert roc_auc_score(truth, model.predict_proba(new)[:, 0]) > 0.85


@LOSSES
@pytest.mark.parametrize("n", [60, 400])
def test_a_class_of_one_row_takes_no_strata_from_the_others(n, loss):
    X, y, new, truth = rare_class(n, 5, "numbers")
    y[np.argmin(X[:, 0])] = 9
    model = SubquadMLPClassifier(loss=loss, **SETTINGS).fit(X, y)
    assert roc_auc_score(truth, model.predict_proba(new)[:, 1]) > 0.85


@LOSSES
@pytest.mark.parametrize("n", [3, 4, 8, 20])
def test_few_rows_of_noise_are_not_sure(n, loss):
    """Mean probability of the likelier class, over draws of features that say nothing."""
    confidence = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = SubquadMLPClassifier(loss=loss, hidden_layer_sizes=(64, 64), random_state=seed)
        model.fit(rng.standard_normal((n, 3)), np.arange(n) % 2)
        confidence.append(np.median(model.predict_proba(rng.standard_normal((200, 3))).max(axis=1)))
    assert np.mean(confidence) < 0.85
