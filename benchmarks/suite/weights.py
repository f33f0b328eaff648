"""Lazy weights: folding factors in by every route, and queries with factors pending."""

from sklearn_subquad._linalg.packed import ROUTES, PackedMatrix
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.lazy_weights import LazyWeights

from .kernels import N_ROWS, sparse_rows


class Folding:
    params = ((1024, 4096), (0.05, 0.2, 0.5), ROUTES)
    param_names = ("width", "density", "route")

    def setup(self, width, density, route):
        self.W = PackedMatrix.zeros(width, width, "float32")
        self.factors = [sparse_rows(N_ROWS, width, density, "float32", seed) for seed in range(2)]

    def time_add_product(self, width, density, route):
        with worker_threads():
            self.W.add_product(*self.factors, route)


class Queries:
    params = ((1024, 4096), (0, 1, 4))
    param_names = ("width", "pending")

    def setup(self, width, pending):
        self.weights = LazyWeights(PackedMatrix.zeros(width, width, "float32"), max_rank=N_ROWS * 8)
        for step in range(pending):
            self.weights.push(*(sparse_rows(N_ROWS, width, 0.2, "float32", 2 * step + s) for s in range(2)))
        self.rows = sparse_rows(N_ROWS, width, 0.2, "float32", 100)

    def time_forward(self, width, pending):
        with worker_threads():
            self.weights.forward(self.rows)

    def time_backward(self, width, pending):
        with worker_threads():
            self.weights.backward(self.rows)
