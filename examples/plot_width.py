"""
Wider networks: error and time
==============================

What does a wider network bring, and what does it cost? Two hidden layers of 64 to 4,096 neurons learn Friedman's first
function from 500 rows. Nothing but the width changes: there is no learning rate to find for each.
"""

import time

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import make_friedman1
from sklearn.metrics import root_mean_squared_error
from sklearn.neural_network import MLPRegressor

from sklearn_subquad import SubquadMLPRegressor

WIDTHS = 2 ** np.arange(6, 13)
NOISE, N_TRAIN, N_DRAWS = 0.1, 500, 2

# %%
# Every width is fitted to two draws of the data, by ten steps each. What a step takes is in `phase_times_`; drawing
# the initial weights and what comes after the last step are left out.
#
# Beside it stands scikit-learn's dense MLP of the same width: the second call of its `partial_fit`, one epoch of Adam
# over the same rows, up to 2,048 neurons. (It needs some hundred epochs where the other needs about ten steps.)


def seconds_per_step(model):
    per_step = ("forward", "jacobian", "solve", "update", "flush")
    return sum(model.phase_times_[phase] for phase in per_step) / model.n_iter_


def seconds_per_epoch(width, X, y):
    dense = MLPRegressor(hidden_layer_sizes=[width] * 2, random_state=0).partial_fit(X, y)
    start = time.perf_counter()
    dense.partial_fit(X, y)
    return time.perf_counter() - start


errors, step_times = np.empty((2, N_DRAWS, len(WIDTHS)))
for draw in range(N_DRAWS):
    X, y = make_friedman1(N_TRAIN + 2000, noise=NOISE, random_state=draw)
    X = X.astype(np.float32)
    X_train, y_train = X[:N_TRAIN], y[:N_TRAIN]
    for i, width in enumerate(WIDTHS):
        model = SubquadMLPRegressor(
            hidden_layer_sizes=[width] * 2, early_stopping=False, max_iter=10, random_state=draw
        ).fit(X_train, y_train)
        errors[draw, i] = root_mean_squared_error(y[N_TRAIN:], model.predict(X[N_TRAIN:]))
        step_times[draw, i] = seconds_per_step(model)
dense_widths = WIDTHS[:-1]
epoch_times = [seconds_per_epoch(width, X_train, y_train) for width in dense_widths]

# %%
# The error on 2,000 other rows falls with the width up to about 1,024 neurons and then stays where it is: wider does
# no harm, although the widest network has 17 million weights for 500 rows. It is well above the noise of 0.1: these
# fits take ten steps whatever comes of it. At the defaults, the mean of eight networks that are stopped by held-out
# rows, the error at width 1,024 is about 0.44 on the same draws.
#
# In the right picture both axes are logarithmic, so that the slope is the power of the width that the time grows with.
# The dotted line grows with its square, as a dense network has to. In narrow networks the step costs what does not
# depend on the width, among it the Gram matrix of 500 × 500 numbers, and an epoch of Adam is the faster one.

figure, (error_ax, time_ax) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
error_ax.plot(WIDTHS, errors.T, "o", color="C0", alpha=0.35, markersize=4)
error_ax.plot(WIDTHS, errors.mean(axis=0), "C0o-", label="Mean of two draws")
error_ax.axhline(NOISE, color="0.35", linestyle=":", label="Noise")
error_ax.set(title="Test error", ylabel="Root mean squared error", ylim=(0, None))

time_ax.plot(WIDTHS, np.median(step_times, axis=0), "C0o-", label="A Gauss-Newton step")
time_ax.plot(dense_widths, epoch_times, "C1s--", label="An epoch of MLPRegressor")
square = (WIDTHS[-4:] / dense_widths[-1]) ** 2
time_ax.plot(WIDTHS[-4:], 0.4 * epoch_times[-1] * square, color="0.35", linestyle=":", label="Square of the width")
time_ax.set(title="Time", ylabel="Seconds", yscale="log")

for ax in (error_ax, time_ax):
    ax.set_xscale("log", base=2)
    ax.set_xticks(WIDTHS, WIDTHS)
    ax.set_xlabel("Neurons in each of two hidden layers")
    ax.legend()
plt.show()
