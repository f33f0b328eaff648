"""
Data that do not fit into memory
================================

`partial_fit` takes a part of the data at a time and goes over it once. Here the data lie in a file that is mapped into
memory, so that only the part in use need be there. (The file is a small one; nothing changes with its size.)
"""

import pathlib
import tempfile

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import make_friedman1
from sklearn.linear_model import SGDRegressor
from sklearn.metrics import root_mean_squared_error
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPRegressor

N_PARTS, PART, NOISE = 10, 1000, 0.5
WIDTHS = (256, 256)
X_test, y_test = make_friedman1(4000, noise=NOISE, random_state=N_PARTS)
X_test = X_test.astype(np.float32)

# %%
# The file is written and read part by part: ten features and the target. Both are standardised by the first part
# (the network alone would not need that). All models see every row once, but for one of the two dense MLPs, which goes
# over every part twenty times.

parts = [slice(start, start + PART) for start in range(0, N_PARTS * PART, PART)]
# Models and how often they go over a part.
models = {
    "SubquadMLPRegressor": (SubquadMLPRegressor(hidden_layer_sizes=WIDTHS, random_state=0), 1),
    "MLPRegressor, 20 times": (MLPRegressor(hidden_layer_sizes=WIDTHS, random_state=0), 20),
    "MLPRegressor": (MLPRegressor(hidden_layer_sizes=WIDTHS, random_state=0), 1),
    "SGDRegressor": (SGDRegressor(random_state=0), 1),
}
errors = {name: [] for name in models}

with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "rows.npy"
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(N_PARTS * PART, 11))
    for seed, part in enumerate(parts):
        table[part] = np.column_stack(make_friedman1(PART, noise=NOISE, random_state=seed))
    table.flush()
    del table

    table = np.load(path, mmap_mode="r")
    features, target = (StandardScaler().fit(table[parts[0], columns]) for columns in (slice(10), slice(10, 11)))
    for part in parts:
        X, y = features.transform(table[part, :10]), target.transform(table[part, 10:]).ravel()
        for name, (model, n_passes) in models.items():
            for _ in range(n_passes):
                model.partial_fit(X, y)
            prediction = target.inverse_transform(model.predict(features.transform(X_test))[:, None])
            errors[name].append(root_mean_squared_error(y_test, prediction))

    # For comparison, what `fit` learns from all rows at once, going over them until a held-out part says stop.
    whole = SubquadMLPRegressor(hidden_layer_sizes=WIDTHS, random_state=0).fit(table[:, :10], table[:, 10])
    error_of_fit = root_mean_squared_error(y_test, whole.predict(X_test))
    # The file is to be closed before it is removed.
    del table

# %%
# From the fourth part on the network is ahead of all others, and the last parts bring it close to what `fit` makes of
# all rows. The dense MLP learns slowly from one pass over each part. With twenty it is better on the first three parts,
# and gains little from those that follow. The linear model has nothing to learn after the first part.

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
n_rows = PART * np.arange(1, N_PARTS + 1)
for (name, curve), style in zip(errors.items(), ("C0o-", "C1s--", "C3v--", "C2^-."), strict=True):
    ax.plot(n_rows, curve, style, label=name)
ax.axhline(error_of_fit, color="C0", linestyle=":", label="fit on all rows")
ax.axhline(NOISE, color="0.35", linewidth=1, label="Noise")
ax.set(
    title="Test error after every part",
    xlabel="Rows seen",
    ylabel="Root mean squared error",
    yscale="log",
    ylim=(0.45, 7),
)
ax.set_yticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
ax.set_yticks([], minor=True)
ax.legend(loc="upper right", ncols=2)
plt.show()
