"""
Few neurons are active
======================

The activation of the hidden layers is a shifted ReLU, ``max(z - shift, 0)``. The shift is set so that a fraction of the
neurons, the `density`, is active on a row; all products then go over these alone. The default is a density of
width^(-1/5): a quarter of 1,024 neurons and a sixth of 8,192.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits, make_friedman1
from sklearn.metrics import root_mean_squared_error

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

# %%
# The activations of a layer
# --------------------------
# A classifier learns the ten digits. Its fitted attributes say what the layers compute, so that they can be followed by
# hand. Here the pixels are centred outside and divided by one scale for all; inside they are only divided by the root
# of their number.


def activations(model, X):
    """Outputs of every hidden layer, dense."""
    x = X / np.sqrt(model.n_features_in_)
    layers, g = [], x
    for W, b, shift, gain in zip(model.coefs_[:-1], model.intercepts_[:-1], model.shifts_, model.gains_, strict=True):
        layers.append(gain * np.maximum(g @ W + b - shift, 0))
        # With skip connections the next layer sees the features as well.
        g = np.hstack([layers[-1], x])
    return layers


images, labels = load_digits(return_X_y=True)
images = images - images.mean(axis=0)
images /= images.std()
model = SubquadMLPClassifier(
    hidden_layer_sizes=(512, 512), n_bins=None, standardize=False, early_stopping=False, max_iter=5, random_state=0
).fit(images, labels)

# Twenty rows of every class, class by class.
rows = np.concatenate([np.flatnonzero(labels == digit)[:20] for digit in range(10)])
hidden = activations(model, images[rows])[-1]
print(f"active neurons: {np.mean(hidden > 0):.3f}, by the attribute densities_ {model.densities_[-1]:.3f}")
print(f"neurons that are active on none of these rows: {np.count_nonzero(np.all(hidden == 0, axis=0))}")

# %%
# In the picture a row is an image, and a column one of the 512 neurons of the last layer. Neurons are sorted by the
# digit on which they are most active. White is exactly zero. Along the diagonal every digit has its own neurons, but
# most of them are active on other digits as well. The fraction of active neurons is a mean: on the right are those that
# none of these images activates, about a quarter.

by_digit = hidden.reshape(10, 20, -1).mean(axis=1)
# Those that are never active come last.
favourite = np.where(by_digit.any(axis=0), by_digit.argmax(axis=0), 10)
order = np.lexsort((-by_digit.max(axis=0), favourite))
seen = np.ma.masked_equal(hidden[:, order], 0)

figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
image = ax.imshow(seen, aspect="auto", cmap="viridis_r", interpolation="nearest", vmax=np.quantile(hidden, 0.995))
ax.set_yticks(np.arange(10) * 20 + 9.5, range(10))
ax.set(title="Activations of the last hidden layer", xlabel="Neuron, sorted", ylabel="Digit, 20 images of each")
figure.colorbar(image, ax=ax, label="Activation", extend="max")

# %%
# Density against error and time
# ------------------------------
# A wider network, for regression on 500 rows, at densities from 1 % to the 50 % of the ordinary ReLU. Little of what
# that computes is needed: the error is hardly larger down to a density of 5 % and grows below, while a step of the
# ordinary ReLU takes by far the longest. At small densities the rest of the work is most of the time. The default is on
# the dense side.

DENSITIES, WIDTH, N_TRAIN = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), 2048, 500
X, y = make_friedman1(N_TRAIN + 2000, noise=0.1, random_state=0)
X = X.astype(np.float32)

measured = []
for density in (*DENSITIES, "auto"):
    regressor = SubquadMLPRegressor(
        hidden_layer_sizes=(WIDTH, WIDTH), density=density, early_stopping=False, max_iter=10, random_state=0
    ).fit(X[:N_TRAIN], y[:N_TRAIN])
    phases = ("forward", "jacobian", "solve", "update", "flush")
    seconds = sum(regressor.phase_times_[phase] for phase in phases) / regressor.n_iter_
    error = root_mean_squared_error(y[N_TRAIN:], regressor.predict(X[N_TRAIN:]))
    measured.append((regressor.densities_.mean(), error, seconds))
*fixed, auto = measured
densities, errors, seconds = np.array(fixed).T

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axes[0].plot(densities, errors, "C0o-")
axes[0].plot(auto[0], auto[1], "C1D", markersize=9, label='density="auto"')
axes[0].set(title="Test error", ylabel="Root mean squared error", ylim=(0, None))
axes[1].plot(densities, seconds, "C0o-")
axes[1].plot(auto[0], auto[2], "C1D", markersize=9, label='density="auto"')
axes[1].set(title="Time of a step", ylabel="Seconds", ylim=(0, None))
for ax in axes:
    ax.set(xlabel="Fraction of active neurons", xscale="log")
    ax.set_xticks(DENSITIES, [f"{density:g}" for density in DENSITIES])
    ax.set_xticks([], minor=True)
    ax.legend()
plt.show()
