"""Preconditioners: inner iterations against the damping, and where the sketch overtakes the Gram matrix.

python benchmarks/speed/preconditioning.py iterations crossover     # about ten minutes
python benchmarks/speed/preconditioning.py --smoke

Fashion-MNIST is read from ``../shared/data`` beside the repository (or --data) and left out where that is missing.
"""

import pathlib
import sys
import time

import numpy as np
from sklearn.datasets import load_digits

from sklearn_subquad._curvature.gram import GramMatrix, LayerGrams
from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._curvature.preconditioners import (
    cheapest_preconditioner,
    default_sketch_size,
    make_preconditioner,
)
from sklearn_subquad._fit.scaling import InputScaling
from sklearn_subquad._linalg.pcg import pcg
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.activations import auto_density
from sklearn_subquad._network.network import Architecture, Network

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import run_chosen
from common.sets import load_images
from suite.problems import friedman

TOLERANCE, MAX_ITERATIONS = 1e-3, 300
# Of the crossover: the least damping that a fit starts from, and rows by width.
DAMPING, KINDS = 0.3, ("gram", "sketch")
SIZES = {
    1024: (500, 1000, 2000, 3000, 4000, 5000, 6000, 8000),
    4096: (500, 1000, 2000, 3000, 4000, 6000, 8000),
    16384: (500, 1000, 2000),
}


def linearise(X, Y, width, init_scale, n_random=3):
    """A random network's Jacobian on these rows, and the residual."""
    X = X.astype(np.float32)
    x = InputScaling.fit(X, np.ones(len(X)), True).transform(X)
    architecture = Architecture((width, width), (auto_density(width),) * 2, init_scale=init_scale)
    network = Network.initialise(architecture, x, np.ones(len(x)), Y.shape[1], seed=0)
    activations = network.forward(x)
    probes = make_probes(Y.shape[1], np.random.default_rng(1), n_random)
    jacobian = Jacobian(network, activations, np.ones(len(x)), probes, IdentityFactor())
    return jacobian, (Y - activations.output).astype(np.float32)


def solve(jacobian, residual, name, shift, size=None, tol=TOLERANCE):
    """Seconds of a whole inner solve, the preconditioner included, and its iterations."""
    # Without what an earlier preconditioner left behind.
    jacobian._layer_grams = LayerGrams(jacobian.layer_inputs, jacobian.activations)
    jacobian.gram = GramMatrix(jacobian.probe_cotangents, jacobian.probe_outputs, jacobian._layer_grams)
    size = size or default_sketch_size(jacobian.n_rows)
    start = time.perf_counter()
    preconditioner = make_preconditioner(
        name, sketch="tensor_srht", sketch_size=size, seed=0, n_outputs=jacobian.n_outputs
    )
    preconditioner.prepare(jacobian, False)
    preconditioner.factor(shift)
    if preconditioner.exact:
        preconditioner.apply(residual)
        n_iter = 1
    else:
        n_iter = pcg(
            lambda C: jacobian.gram_matvec(C) + np.float32(shift) * C,
            residual,
            preconditioner.apply,
            tol=tol,
            max_iter=MAX_ITERATIONS,
        ).n_iter
    return time.perf_counter() - start, n_iter


def iterations(arguments):
    """Inner iterations to 1e-3 by preconditioner and damping."""
    X, y = load_digits(return_X_y=True)
    sets = {"digits": (X, y)}
    loaded = load_images(arguments.data)
    if loaded is None:
        print(f"iterations: Fashion-MNIST left out (none in {arguments.data}), digits alone.")
    else:
        sets["Fashion-MNIST"] = loaded[:2]
    n_rows, width = (150, 64) if arguments.smoke else (2000, 2048)
    for name, (X, y) in sets.items():
        X, Y = X[:n_rows], np.eye(10)[y[:n_rows]]
        for init_scale in (0.05, 1.0):
            with worker_threads():
                jacobian, residual = linearise(X, Y - Y.mean(axis=0), width, init_scale)
                print(f"{name}, {len(X)} rows, width {width}, init_scale {init_scale}: none / sketch (2n) / gram")
                for damping in (1e-3, 1e-2, 1e-1, 1.0):
                    shift = damping * jacobian.mean_diagonal()
                    kinds = ("none", "sketch", "gram")
                    counts = [solve(jacobian, residual, kind, shift, size=2 * len(X))[1] for kind in kinds]
                    print(f"  damping {damping:5}: {' / '.join(f'{count:4d}' for count in counts)}", flush=True)


def crossover(arguments):
    """Seconds of an inner solve to 0.01, as in fits, with the Gram matrix and with sketches; what "auto" takes."""
    sizes, repeats = ({64: (200,)}, 1) if arguments.smoke else (SIZES, 3)
    problems = [(width, n_rows, k) for width in sizes for n_rows in sizes[width] for k in (1, 4)]
    print(f"seconds (iterations), damping {DAMPING}; excess: of auto over the faster of the two")
    worst = 0.0
    for width, n_rows, k in problems:
        X, y = friedman(n_rows)
        Y = np.column_stack([np.roll(y, shift) for shift in range(k)])
        with worker_threads():
            jacobian, residual = linearise(X, (Y - Y.mean(axis=0)) / Y.std(axis=0), width, 0.05)
            shift = DAMPING * jacobian.mean_diagonal()
            runs = [[solve(jacobian, residual, kind, shift, tol=1e-2) for kind in KINDS] for _ in range(repeats)]
        gram, sketch = (float(np.median([run[i][0] for run in runs])) for i in range(2))
        auto = cheapest_preconditioner(n_rows, (width, width), (auto_density(width),) * 2, k, 1)
        excess = {"gram": gram, "sketch": sketch}[auto] / min(gram, sketch) - 1
        worst = max(worst, excess)
        print(
            f"width {width}, {n_rows} rows, {k} outputs: gram {gram:.3f} ({runs[0][0][1]}), "
            f"sketch {sketch:.3f} ({runs[0][1][1]}); auto: {auto}, excess {excess:.0%}",
            flush=True,
        )
    print(f"largest excess {worst:.0%}")


if __name__ == "__main__":
    run_chosen(__doc__, (iterations, crossover))
