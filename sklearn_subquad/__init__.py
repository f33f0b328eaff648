"""Very wide multi-layer perceptrons for scikit-learn, trained by Gauss-Newton at subquadratic cost."""

from importlib.metadata import version

from sklearn_subquad._classifier import SubquadMLPClassifier
from sklearn_subquad._regressor import SubquadMLPRegressor
from sklearn_subquad._show_versions import show_versions

__version__ = version("sklearn_subquad")

__all__ = ["SubquadMLPClassifier", "SubquadMLPRegressor", "__version__", "show_versions"]
