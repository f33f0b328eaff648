"""Dense ReLU networks in PyTorch, trained by Adam or by Gauss-Newton: what a user would write by hand.

Both work on standardised features and targets in single precision. `training` is a generator that hands out a
function to predict with after every epoch or step, so that the caller can time one without the other.
"""

import copy
import itertools

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from torch import nn

# The first optimizer makes PyTorch import for seconds, which is not part of a training.
torch.optim.Adam([torch.zeros(1, requires_grad=True)])

BATCH_SIZE = 200
# Of the Gauss-Newton steps, relative to the mean diagonal of the Gram matrix, and how it adapts: as in this package.
FIRST_DAMPING, GROWTH, SHRINKAGE, LARGEST_DAMPING = 0.3, 4.0, 0.5, 1e6
# Of the output at the start, in the target's deviations; 1 and 0.01 gave the same errors.
OUTPUT_SCALE = 0.1


class _Scaler:
    """Mean and deviation of the columns, in single precision."""

    def __init__(self, values):
        self.mean = values.mean(axis=0)
        self.scale = values.std(axis=0)
        self.scale = np.where(self.scale > 0, self.scale, 1.0)

    def transform(self, values):
        return torch.from_numpy(((values - self.mean) / self.scale).astype(np.float32))

    def inverse(self, values):
        return values.numpy() * self.scale + self.mean


class AdamNetwork:
    """Layers with PyTorch's own initial weights, and an epoch of Adam in batches of 200 rows."""

    def __init__(self, x, targets, widths, learning_rate, n_outputs, loss):
        sizes = (x.shape[1], *widths)
        layers = [layer for n_in, n_out in itertools.pairwise(sizes) for layer in (nn.Linear(n_in, n_out), nn.ReLU())]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], n_outputs))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.x, self.targets, self.loss = x, targets, loss

    def advance(self):
        for rows in torch.randperm(len(self.x)).split(min(BATCH_SIZE, len(self.x))):
            self.optimizer.zero_grad()
            self.loss(self.network(self.x[rows]), self.targets[rows]).backward()
            self.optimizer.step()
        return True

    def outputs(self, x):
        with torch.no_grad():
            return torch.cat([self.network(rows) for rows in x.split(1024)])

    def state(self):
        return copy.deepcopy(self.network.state_dict())

    def restore(self, state):
        self.network.load_state_dict(state)


class GaussNewtonNetwork:
    """Levenberg-Marquardt steps on all rows, for one output and the squared error.

    The derivative of row i by the weights of a layer is the outer product of u_i, that of the output by the layer's
    pre-activations, and g_i, the layer's inputs with a one. So the n x n matrix J J^T is a sum of products of Gram
    matrices, and no Jacobian is formed.
    """

    def __init__(self, x, targets, widths):
        sizes = (x.shape[1], *widths)
        self.weights = [torch.randn(n_out, n_in) * (2 / n_in) ** 0.5 for n_in, n_out in itertools.pairwise(sizes)]
        self.weights.append(torch.randn(1, sizes[-1]) * OUTPUT_SCALE / sizes[-1] ** 0.5)
        self.biases = [torch.zeros(len(weights)) for weights in self.weights]
        self.x, self.targets = x, targets
        self.damping = FIRST_DAMPING
        self.layer_inputs, self.residual = self._forward()

    def _forward(self):
        layer_inputs = [self.x]
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            layer_inputs.append(torch.addmm(b, layer_inputs[-1], W.T).relu_())
        output = torch.addmm(self.biases[-1], layer_inputs[-1], self.weights[-1].T)
        return layer_inputs, self.targets - output

    def _cotangents(self):
        """Derivatives of the output of every row by its pre-activations, of each layer."""
        cotangents = [torch.ones_like(self.residual)]
        for W, h in zip(reversed(self.weights[1:]), reversed(self.layer_inputs[1:]), strict=True):
            cotangents.append((cotangents[-1] @ W).mul_(h > 0))
        return cotangents[::-1]

    def _add(self, cotangents, layer_inputs, coefficients):
        """Add J^T coefficients to the weights."""
        for W, b, u, g in zip(self.weights, self.biases, cotangents, layer_inputs, strict=True):
            scaled = coefficients * u
            W.addmm_(scaled.T, g)
            b.add_(scaled.sum(dim=0))

    def advance(self):
        """One step, or False where none is better than the present weights."""
        layer_inputs, residual, cotangents = self.layer_inputs, self.residual, self._cotangents()
        gram = sum((g @ g.T + 1) * (u @ u.T) for g, u in zip(layer_inputs, cotangents, strict=True)).double()
        mean_diagonal = gram.diagonal().mean()
        while self.damping < LARGEST_DAMPING:
            shifted = gram.clone()
            shifted.diagonal().add_(self.damping * mean_diagonal)
            solution = torch.cholesky_solve(residual.double(), torch.linalg.cholesky(shifted))
            predicted = residual.double() - gram @ solution
            coefficients = solution.float()
            self._add(cotangents, layer_inputs, coefficients)
            self.layer_inputs, self.residual = self._forward()
            before = residual.square().sum()
            gain = (before - self.residual.square().sum()) / (before - predicted.square().sum())
            if gain >= 0.1:
                if gain > 0.75:
                    self.damping *= SHRINKAGE
                return True
            self._add(cotangents, layer_inputs, -coefficients)
            self.damping *= GROWTH
        self.layer_inputs, self.residual = layer_inputs, residual
        return False

    def outputs(self, x):
        parts = []
        for h in x.split(1024):
            for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
                h = torch.addmm(b, h, W.T).relu_()
            parts.append(torch.addmm(self.biases[-1], h, self.weights[-1].T))
        return torch.cat(parts)

    def state(self):
        return copy.deepcopy((self.weights, self.biases))

    def restore(self, state):
        self.weights, self.biases = state


class _TorchMLP(BaseEstimator):
    """Stops on a tenth of the rows, after `patience` epochs or steps without a lower error; the best network counts."""

    def __init__(
        self,
        hidden_layer_sizes=(1024, 1024),
        solver="adam",
        learning_rate=1e-3,
        max_iter=500,
        patience=20,
        random_state=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.solver = solver
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.patience = patience
        self.random_state = random_state

    def training(self, X, y):
        """After every epoch or step a function from rows to targets, without an end unless no step is better."""
        torch.manual_seed(self.random_state)
        network = self._start(X, y)
        while network.advance():
            yield self.predict

    def fit(self, X, y):
        torch.manual_seed(self.random_state)
        stratify = y if isinstance(self, ClassifierMixin) else None
        X, X_held, y, y_held = train_test_split(X, y, test_size=0.1, stratify=stratify, random_state=self.random_state)
        network = self._start(X, y)
        least, best_iter, best = np.inf, 0, network.state()
        self.n_iter_ = 0
        while self.n_iter_ < self.max_iter and self.n_iter_ - best_iter < self.patience and network.advance():
            self.n_iter_ += 1
            if (error := self._error(X_held, y_held)) < least:
                least, best_iter, best = error, self.n_iter_, network.state()
        network.restore(best)
        return self

    def _outputs(self, X):
        return self.network_.outputs(self.scaler_.transform(X))


class TorchMLPRegressor(RegressorMixin, _TorchMLP):
    def _start(self, X, y):
        self.scaler_, self.target_scaler_ = _Scaler(X), _Scaler(y[:, None])
        x, targets = self.scaler_.transform(X), self.target_scaler_.transform(y[:, None])
        if self.solver == "gauss-newton":
            self.network_ = GaussNewtonNetwork(x, targets, self.hidden_layer_sizes)
        else:
            self.network_ = AdamNetwork(x, targets, self.hidden_layer_sizes, self.learning_rate, 1, nn.MSELoss())
        return self.network_

    def predict(self, X):
        return self.target_scaler_.inverse(self._outputs(X))[:, 0]

    def _error(self, X, y):
        return np.mean((self.predict(X) - y) ** 2)


class TorchMLPClassifier(ClassifierMixin, _TorchMLP):
    def _start(self, X, y):
        self.scaler_ = _Scaler(X)
        self.classes_, places = np.unique(y, return_inverse=True)
        x, targets, loss = self.scaler_.transform(X), torch.from_numpy(places), nn.CrossEntropyLoss()
        n_classes = len(self.classes_)
        self.network_ = AdamNetwork(x, targets, self.hidden_layer_sizes, self.learning_rate, n_classes, loss)
        return self.network_

    def predict(self, X):
        return self.classes_[self._outputs(X).argmax(dim=1).numpy()]

    def _error(self, X, y):
        places = torch.from_numpy(np.searchsorted(self.classes_, y))
        return nn.functional.cross_entropy(self._outputs(X), places).item()
