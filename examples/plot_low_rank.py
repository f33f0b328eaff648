"""
Updates of low rank
===================

A step of Gauss-Newton on n rows changes a weight matrix by a sum of n outer products, one per row. Its rank is at most
n, however wide the layers are. That is why the package need not form the change: it keeps the factors and folds them
into the weights later. Here the changes are formed, to look at their singular values.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import make_friedman1

from sklearn_subquad import SubquadMLPRegressor

N_ROWS, WIDTH = 80, 512
STEPS = (1, 2, 4, 8)

X, y = make_friedman1(N_ROWS, noise=0.5, random_state=0)

# %%
# Weights at the start and after some steps
# -----------------------------------------
# Fits that differ in `max_iter` alone start at the same weights and take the same steps. Where they start, a step shows
# that is damped so much that it changes nothing to speak of.


def hidden_weights(**parameters):
    """Weights from the first hidden layer to the second."""
    model = SubquadMLPRegressor(
        hidden_layer_sizes=(WIDTH, WIDTH),
        early_stopping=False,
        tol=0.0,
        precision="double",
        random_state=0,
        **parameters,
    ).fit(X, y)
    return model.coefs_[1][:WIDTH]


start = hidden_weights(max_iter=1, damping=1e6)
changes = [hidden_weights(max_iter=n) - start for n in STEPS]
spectra = [np.linalg.svd(change, compute_uv=False) for change in changes]

# %%
# On the left is the whole spectrum, on a logarithmic axis. After one step it falls to rounding errors (of numbers in
# double precision) behind the 80th singular value, after two behind the 160th, after four behind the 320th: the number
# of steps times the number of rows. After eight steps that would be more than there are neurons, and the rank ends with
# the number of neurons that are active on some row: the weights of others do not change.
#
# On the right is how much of the change the largest ones make up, as a share of its squared Frobenius norm. Far fewer
# than n matter: some twenty directions are 99 % of it, hardly more after eight steps than after one. (Of this the
# package makes no use; it keeps all factors.)

figure, (spectrum_ax, share_ax) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
colors = plt.get_cmap("viridis")(np.linspace(0.85, 0, len(STEPS)))
styles = ("-", "--", "-.", ":")
for n, spectrum, color, style in zip(STEPS, spectra, colors, styles, strict=True):
    label = f"{n} step" if n == 1 else f"{n} steps"
    index = np.arange(1, WIDTH + 1)
    spectrum_ax.plot(index, spectrum, style, color=color, label=label)
    share_ax.plot(index, np.cumsum(spectrum**2) / np.sum(spectrum**2), style, color=color, label=label)
for multiple in (1, 2, 4):
    spectrum_ax.axvline(multiple * N_ROWS, color="0.8", linewidth=1, zorder=0)
spectrum_ax.set(
    title="Singular values of the change", xlabel="Index", ylabel="Singular value", yscale="log", ylim=(1e-12, 10)
)
spectrum_ax.set_xticks([1, *(multiple * N_ROWS for multiple in (1, 2, 4)), WIDTH])
share_ax.axhline(0.99, color="0.35", linewidth=1)
share_ax.annotate("99 %", (1.1, 0.99), xytext=(0, -3), textcoords="offset points", va="top", color="0.35")
share_ax.set(title="Share of the largest", xlabel="Number of singular values", xscale="log", ylim=(0, 1.03))
share_ax.yaxis.set_major_formatter(PercentFormatter(1.0))
for ax in (spectrum_ax, share_ax):
    ax.legend()

# %%
# The change is small beside what the weights started with. That is the regime of the paper: a wide network is trained
# while its weights hardly move.

for n, change in zip(STEPS, changes, strict=True):
    size = np.linalg.norm(change) / np.linalg.norm(start)
    moved = np.count_nonzero(np.any(np.abs(change) > 1e-9, axis=1))
    print(f"steps: {n}, change by {size:.2%} of the initial weights, of {moved} of {WIDTH} neurons of the first layer")
plt.show()
