"""
How sure a prediction is
========================

``predict(X, return_std=True)`` returns standard deviations of the targets beside their means. They come from the
network's linearisation at the fitted weights, as a Bayesian linear model, and from the noise. Here is a curve with a
gap in the data, beside the same from a Gaussian process.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from sklearn_subquad import SubquadMLPRegressor

NOISE = 0.2
rng = np.random.default_rng(0)


def curve(x):
    return np.sin(3 * x) + 0.5 * x


def draw(n_rows):
    """Rows on both sides of a gap."""
    x = rng.uniform(0.7, 3, n_rows) * rng.choice([-1, 1], n_rows)
    return x[:, None], curve(x) + NOISE * rng.standard_normal(n_rows)


X, y = draw(150)
X_test, y_test = draw(2000)

# %%
# Both learn the noise from the data; of the network nothing is tuned.

network = SubquadMLPRegressor(random_state=0)
process = GaussianProcessRegressor(ConstantKernel() * RBF() + WhiteKernel(), normalize_y=True, random_state=0)
models = {"SubquadMLPRegressor": network.fit(X, y), "GaussianProcessRegressor": process.fit(X, y)}

grid = np.linspace(-4.5, 4.5, 500)
z = 1.645
figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
for (name, model), ax in zip(models.items(), axes, strict=True):
    mean, std = model.predict(grid[:, None], return_std=True)
    ax.fill_between(grid, mean - z * std, mean + z * std, color="C0", alpha=0.25, linewidth=0, label="90 % interval")
    ax.plot(grid, mean, "C0", label="Prediction")
    ax.plot(grid, curve(grid), "C1--", linewidth=1.2, label="Truth")
    ax.plot(X[:, 0], y, "o", color="0.25", markersize=2, label="Data")
    ax.set(title=name, xlabel="x", ylim=(-5, 5))
axes[0].set_ylabel("y")
axes[0].legend(loc="lower right")

# %%
# Where there are data, the band is about as wide as the noise asks for. It grows in the gap and outside, for both. How
# they go on there is what differs: a network of ReLUs goes on along straight lines, of which it is less and less sure,
# the Gaussian process returns to the mean. Neither can know that the curve goes on as a sine. To the left of the data
# the network is too sure of its line: the curve leaves the interval at once.
#
# The bands of the Gaussian process are smooth, as is the curve. Those of the network have edges, where neurons become
# active: with a single feature, all of them do so at points. On such a problem the Gaussian process is the better
# choice; it is with more features, and more rows than it can take, that the network has its place.
#
# On 2,000 other rows from where the data are, the share that lies in the 90 % interval, and the root mean squared error
# (the noise is 0.2):

for name, model in models.items():
    mean, std = model.predict(X_test, return_std=True)
    inside = np.mean(np.abs(y_test - mean) <= z * std)
    print(f"{name}: {inside:.1%} in the interval, error {np.sqrt(np.mean((y_test - mean) ** 2)):.3f}")
plt.show()
