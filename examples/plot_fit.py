"""
How a fit went
==============

:class:`~sklearn_subquad.plotting.FitDisplay` draws three things that a fitted estimator remembers: its learning curve,
the fraction of neurons that were active beside the rank of the updates that were pending, and the seconds of its
phases. Here are two fits: one of steps on all rows, and one of passes over batches of them.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes, load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad.plotting import FitDisplay

# %%
# Steps on all rows
# -----------------
# The diabetes data have 442 rows, which every step uses. The regressor follows its leave-one-out error and returns to
# the step where that was lowest. These data are noisy: the training loss goes on falling after the error has turned.

X, y = load_diabetes(return_X_y=True)
regressor = SubquadMLPRegressor(early_stopping="loo", random_state=0).fit(X.astype(np.float32), y)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(2, 3), layout="constrained")
display = FitDisplay.from_estimator(regressor, panels=["loss", "density"], ax=axes)
# Everything drawn is at hand.
display.best_line_.set_linewidth(2)

# %%
# Passes over batches
# -------------------
# The digits are fitted in batches, and a tenth of the rows is held out to say when to stop. Of a pipeline, the last
# step is drawn. The loss of a pass is that before each batch's step, and the error is that of the average of the
# iterates after it; so the loss of the first pass is above the error.

X, y = load_digits(return_X_y=True)
classifier = SubquadMLPClassifier(hidden_layer_sizes=(512, 512), random_state=0)
pipeline = make_pipeline(StandardScaler(), classifier).fit(X.astype(np.float32), y)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(2, 3), layout="constrained")
FitDisplay.from_estimator(pipeline, panels=["loss", "density"], ax=axes)

# %%
# Where the time went
# -------------------

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, model, color, ax in zip(("Diabetes", "Digits"), (regressor, pipeline), ("C0", "C2"), axes, strict=True):
    FitDisplay.from_estimator(model, panels="time", ax=ax, bar_kw={"color": color})
    ax.set_title(f"{name}: {ax.get_title().lower()}")
plt.show()
