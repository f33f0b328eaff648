"""
A search over parameters in a pipeline
======================================

Tables have columns of several kinds. A :class:`~sklearn.compose.ColumnTransformer` encodes the categories, the network
standardises what it gets, and :class:`~sklearn.model_selection.GridSearchCV` tries parameters of all steps. Is there
anything to gain over the defaults?
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from sklearn_subquad import SubquadMLPRegressor

# %%
# Data of mixed columns
# ---------------------
# Three numbers, and two columns of categories without an order. The categories change both the level of the target
# and how it depends on the numbers.

rng = np.random.default_rng(0)
n_rows = 400
numbers = rng.uniform(-1, 1, (n_rows, 3))
kind, place = rng.choice(list("abcd"), n_rows), rng.choice(["north", "east", "south", "west", "centre"], n_rows)
slopes = dict(zip("abcd", (2.0, -1.0, 0.5, -2.0), strict=True))
levels = {"north": 0.0, "east": 1.0, "south": -1.5, "west": 0.5, "centre": 2.0}
y = np.array([slopes[k] for k in kind]) * numbers[:, 0] + np.array([levels[p] for p in place])
y += np.sin(3 * numbers[:, 1]) * numbers[:, 2] + 0.2 * rng.standard_normal(n_rows)
X = np.column_stack([numbers.astype(object), kind, place])

# %%
# The search
# ----------
# Over the encoding of the categories, the density, and the scale of the output weights at the start, which decides
# between learned features (small) and the kernel regime (1).

encode = ColumnTransformer([("categories", OneHotEncoder(), [3, 4])], remainder="passthrough")
pipeline = Pipeline([("encode", encode), ("mlp", SubquadMLPRegressor(hidden_layer_sizes=(128, 128), random_state=0))])
encoders = {"One-hot": OneHotEncoder(sparse_output=False), "Ordinal": OrdinalEncoder()}
densities, scales = [0.05, 0.2, 0.5, "auto"], [0.02, 0.1, 1.0, "auto"]
search = GridSearchCV(
    pipeline,
    {
        "encode__categories": list(encoders.values()),
        "mlp__density": densities,
        "mlp__init_scale": scales,
        # One fit instead of one for every fold, where many are compared.
        "mlp__early_stopping": ["loo"],
    },
    cv=KFold(3, shuffle=True, random_state=0),
    refit=False,
).fit(X, y)

# GridSearchCV goes through the last parameter of the alphabet fastest.
shape = len(encoders), len(densities), len(scales)
scores = search.cv_results_["mean_test_score"].reshape(shape)
spread = search.cv_results_["std_test_score"].reshape(shape)

# %%
# The encoding matters most: numbers for categories without an order lose much, and make scores depend on the other
# parameters in no clear way. With one column per category, no other setting is better than the default by more than
# scores differ between folds; only a density of 5 %, six neurons a layer, is clearly worse.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True, layout="constrained")
for name, table, ax in zip(encoders, scores, axes, strict=True):
    image = ax.imshow(table, cmap="viridis", vmin=scores.min(), vmax=scores.max())
    for (row, column), score in np.ndenumerate(table):
        light = score < scores.min() + 0.6 * np.ptp(scores)
        ax.text(column, row, f"{score:.3f}", ha="center", va="center", color="white" if light else "black")
    ax.set_xticks(range(len(scales)), scales)
    ax.set_yticks(range(len(densities)), densities)
    ax.set(title=f"{name} encoding", xlabel="init_scale")
axes[0].set_ylabel("density")
figure.colorbar(image, ax=axes, label="R², mean of three folds", shrink=0.8)
print(
    f"best: {search.best_score_:.3f}; defaults: {scores[0, -1, -1]:.3f}; deviation over folds: {np.median(spread):.3f}"
)
plt.show()
