"""Very wide multi-layer perceptrons for scikit-learn, trained by Gauss-Newton at subquadratic cost."""

from sklearn_subquad._classifier import SubquadMLPClassifier
from sklearn_subquad._persistence import VERSION, InconsistentVersionWarning
from sklearn_subquad._regressor import SubquadMLPRegressor
from sklearn_subquad._show_versions import show_versions

__version__ = VERSION

__all__ = [
    "InconsistentVersionWarning",
    "SubquadMLPClassifier",
    "SubquadMLPRegressor",
    "__version__",
    "show_versions",
]
