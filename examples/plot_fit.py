"""Draw how two fits went: one of steps on all rows, and one of passes over batches of them.

    python examples/plot_fit.py [figure.png]

The upper row is a regressor on the diabetes data, which stops by its leave-one-out error and returns to the best step;
the lower row a classifier on the digits, which are fitted in batches. Each has its learning curve, the fraction of
neurons that were active with the rank of the updates that were pending, and the seconds of its phases. The figure is
shown, or saved if a file is named. Needs matplotlib.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes, load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad.plotting import FitDisplay


def main():
    X, y = load_diabetes(return_X_y=True)
    regressor = SubquadMLPRegressor(early_stopping="loo", random_state=0).fit(X.astype(np.float32), y)

    X, y = load_digits(return_X_y=True)
    classifier = SubquadMLPClassifier(hidden_layer_sizes=(512, 512), init="axis_aligned", random_state=0)
    # Of a pipeline, the last step is drawn.
    pipeline = make_pipeline(StandardScaler(), classifier).fit(X.astype(np.float32), y)

    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    FitDisplay.from_estimator(regressor, ax=axes[0])
    display = FitDisplay.from_estimator(pipeline, ax=axes[1], bar_kw={"color": "C2"})
    # Everything drawn is at hand.
    display.best_line_.set_linewidth(2)
    if len(sys.argv) > 1:
        figure.savefig(sys.argv[1])
    else:
        plt.show()


if __name__ == "__main__":
    main()
