"""Friedman's function with noise, as files of parts that any process may load."""

import functools

import numpy as np
from sklearn.datasets import make_friedman1

N_FEATURES = 16


def friedman(n, seed):
    """Features in single precision, and targets with noise of deviation one."""
    X, y = make_friedman1(n, n_features=N_FEATURES, noise=1.0, random_state=seed)
    return X.astype(np.float32), y


def write_parts(folder, n_rows, rows_of_a_part):
    """Write so many rows, a file for each part; returns what loads them."""
    loaders = []
    for number in range(n_rows // rows_of_a_part):
        X, y = friedman(rows_of_a_part, number + 1)
        path = folder / f"part {number}.npy"
        np.save(path, np.column_stack([X, y.astype(np.float32)]))
        loaders.append(functools.partial(load_part, str(path)))
    return loaders


def load_part(path):
    """X and y of a file."""
    rows = np.load(path)
    return rows[:, :-1], rows[:, -1]
