"""Estimators that ours are held against: regressors, classifiers, and classifiers for probabilities.

CatBoost and LightGBM stand at their defaults, on one thread. All others are scikit-learn's, and see standardised
features. Support vector machines and kernel ridge have the RBF kernel, with its width and the regularisation chosen by
grid search in each fit; the others stand at their defaults but for the 300 trees of a forest. Kernel ridge for
classification is the regression of class indicators. Regressors that do not choose the scale of their target by
themselves see a standardised one.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.utils import resample

GAMMAS = [2.0**k for k in range(-11, 2, 2)]
CS = [2.0**k for k in range(-3, 13, 3)]
ALPHAS = [2.0**k for k in range(-20, 1, 4)]
SEARCHED_ROWS = 2000
N_TREES = 300
# The cache in megabytes; the iterations end a corner of the grid that does not converge within seconds.
LIBSVM = {"cache_size": 500, "max_iter": 200_000}


class Folds:
    """Five folds, or three of a random part of 2,000 rows where there are more; classes may have fewer rows than folds.

    As `cv` of a grid search: the search sees the part only, the refit that follows it all rows.
    """

    def __init__(self, stratified):
        self.stratified = stratified

    def get_n_splits(self, X, y=None, groups=None):
        return 5 if len(X) <= SEARCHED_ROWS else 3

    def split(self, X, y, groups=None):
        rows = np.arange(len(X))
        if len(X) > SEARCHED_ROWS:
            labels = y if self.stratified else None
            rows = resample(rows, replace=False, n_samples=SEARCHED_ROWS, stratify=labels, random_state=0)
        kind = StratifiedKFold if self.stratified else KFold
        folds = kind(self.get_n_splits(X), shuffle=True, random_state=0)
        for fitting, validation in folds.split(rows, y[rows]):
            yield rows[fitting], rows[validation]


class KernelRidgeClassifier(ClassifierMixin, BaseEstimator):
    """The class of the largest indicator, fitted by kernel ridge regression around the class frequencies."""

    def __init__(self, alpha=1.0, gamma=None):
        self.alpha = alpha
        self.gamma = gamma

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        indicators = (y[:, None] == self.classes_).astype(float)
        self.frequencies_ = indicators.mean(axis=0)
        self.ridge_ = KernelRidge(alpha=self.alpha, kernel="rbf", gamma=self.gamma)
        self.ridge_.fit(X, indicators - self.frequencies_)
        return self

    def predict(self, X):
        return self.classes_[np.argmax(self.ridge_.predict(X) + self.frequencies_, axis=1)]


def standardized(estimator):
    return make_pipeline(StandardScaler(), estimator)


def standardized_target(regressor):
    return TransformedTargetRegressor(regressor, transformer=StandardScaler())


def grid_search(estimator, **grid):
    grid = {f"{type(estimator).__name__.lower()}__{name}": values for name, values in grid.items()}
    classifies = is_classifier(estimator)
    scoring = "accuracy" if classifies else "neg_mean_squared_error"
    return GridSearchCV(standardized(estimator), grid, scoring=scoring, cv=Folds(stratified=classifies))


def catboost(kind):
    # Imported where it is used: the other tables do without.
    import catboost

    return getattr(catboost, f"CatBoost{kind}")(random_seed=0, thread_count=1, verbose=0, allow_writing_files=False)


def lightgbm(kind):
    import lightgbm

    return getattr(lightgbm, f"LGBM{kind}")(random_state=0, n_jobs=1, verbose=-1)


REGRESSORS = {
    "CatBoost": lambda: catboost("Regressor"),
    "LightGBM": lambda: lightgbm("Regressor"),
    "gradient boosting": lambda: standardized(HistGradientBoostingRegressor(random_state=0)),
    "forest": lambda: standardized(RandomForestRegressor(N_TREES, random_state=0)),
    # The tube is a hundredth of the target's deviation: some of the sets have almost no noise. With the largest C few
    # fits converge.
    "SVR": lambda: standardized_target(grid_search(SVR(epsilon=0.01, **LIBSVM), C=CS[:-1], gamma=GAMMAS)),
    "kernel ridge": lambda: standardized_target(grid_search(KernelRidge(kernel="rbf"), alpha=ALPHAS, gamma=GAMMAS)),
    "MLP": lambda: standardized_target(standardized(MLPRegressor(random_state=0))),
    "MLP, L-BFGS": lambda: standardized_target(standardized(MLPRegressor(solver="lbfgs", random_state=0))),
}
CLASSIFIERS = {
    "CatBoost": lambda: catboost("Classifier"),
    "LightGBM": lambda: lightgbm("Classifier"),
    "gradient boosting": lambda: standardized(HistGradientBoostingClassifier(random_state=0)),
    "forest": lambda: standardized(RandomForestClassifier(N_TREES, random_state=0)),
    "SVM": lambda: grid_search(SVC(**LIBSVM), C=CS, gamma=GAMMAS),
    "kernel ridge": lambda: grid_search(KernelRidgeClassifier(), alpha=ALPHAS, gamma=GAMMAS),
    "MLP": lambda: standardized(MLPClassifier(random_state=0)),
    "MLP, L-BFGS": lambda: standardized(MLPClassifier(solver="lbfgs", random_state=0)),
}
PROBABILISTIC_CLASSIFIERS = {
    "CatBoost": CLASSIFIERS["CatBoost"],
    "LightGBM": CLASSIFIERS["LightGBM"],
    "forest": CLASSIFIERS["forest"],
    "logistic regression": lambda: standardized(LogisticRegression()),
    "MLP": CLASSIFIERS["MLP"],
    "calibrated SVC": lambda: standardized(CalibratedClassifierCV(SVC(), cv=Folds(stratified=True))),
}
