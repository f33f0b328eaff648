"""
Preconditioners of the inner solve
==================================

A step solves ``(J J^T + shift I) c = r`` by conjugate gradients, where J is the Jacobian of all outputs on all rows.
How many iterations that takes depends on the preconditioner: the Gram matrix that the outputs share, a sketch of J, or
none. All of them end in the same solution.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

# Private modules, which may change without notice: estimators do not show the residuals of their inner solves.
from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._curvature.preconditioners import make_preconditioner
from sklearn_subquad._fit.scaling import InputScaling
from sklearn_subquad._linalg.pcg import pcg
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.activations import auto_density
from sklearn_subquad._network.network import Architecture, Network

N_ROWS, WIDTH = 500, 512
TOLERANCE, MAX_ITERATIONS = 1e-6, 150

# %%
# The Jacobian of a random network
# --------------------------------
# Ten outputs, one for each of the digits, make a system of 5,000 unknowns. The output weights start at a scale of 1, as
# they do by default for data of many effective dimensions.

X, labels = load_digits(return_X_y=True)
X, Y = X[:N_ROWS], np.eye(10)[labels[:N_ROWS]]
weights = np.ones(N_ROWS)
x = InputScaling.fit(X, weights, True).transform(X)
architecture = Architecture((WIDTH, WIDTH), (auto_density(WIDTH),) * 2, init_scale=1.0)
network = Network.initialise(architecture, x, weights, 10, seed=0)
probes = make_probes(10, np.random.default_rng(0))
with worker_threads():
    jacobian = Jacobian(network, network.forward(x), weights, probes, IdentityFactor())
    target = Y - Y.mean(axis=0)

# %%
# Residuals of conjugate gradients
# --------------------------------
# The preconditioner is handed the residual of every iteration.


def residual_norms(name, damping, sketch_size):
    """Norms of the residuals relative to the first."""
    shift = damping * jacobian.mean_diagonal()
    preconditioner = make_preconditioner(
        name, sketch="tensor_srht", sketch_size=sketch_size, seed=0, n_outputs=jacobian.n_outputs
    )
    preconditioner.prepare(jacobian, False)
    preconditioner.factor(shift)
    norms = []

    def recording(residual):
        norms.append(np.linalg.norm(residual))
        return preconditioner.apply(residual)

    def operator(C):
        return jacobian.gram_matvec(C) + shift * C

    result = pcg(operator, target, recording, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    return np.array([*norms, np.linalg.norm(result.residual)]) / norms[0]


SOLVES = [
    ("None", "none", None, "C3:"),
    ("Sketch, n / 2 columns", "sketch", N_ROWS // 2, "C1-."),
    ("Sketch, 2 n columns", "sketch", 2 * N_ROWS, "C0--"),
    ("Gram matrix", "gram", None, "C2-"),
]
DAMPINGS = (1.0, 0.01)

# %%
# Both preconditioners save most of the iterations. Without one, 150 iterations on the right do not even reach the line,
# where the solver stops by default when it fits all rows at once (1 % of the residual). A sketch of twice as many
# columns as there are rows is not far behind the Gram matrix; one of half as many costs less and takes longer.
#
# The Gram matrix is no exact solution here, since the ten outputs share one and each has another. With a single output
# it is, and a step is solved directly. With a small scale of the output weights at the start, outputs have nearly the
# same, and a few iterations are enough.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
with worker_threads():
    for damping, ax in zip(DAMPINGS, axes, strict=True):
        for label, name, size, style in SOLVES:
            norms = residual_norms(name, damping, size)
            ax.plot(norms, style, label=label)
            print(f"damping {damping:g}, {label}: {len(norms) - 1} iterations to {norms[-1]:.1e}")
        ax.axhline(1e-2, color="0.35", linewidth=1)
        ax.set(title=f"Damping {damping:g}", xlabel="Iteration", yscale="log", xlim=(0, MAX_ITERATIONS))
axes[0].set_ylabel("Relative residual")
axes[0].legend()
plt.show()
