"""The regression and classification sets of the benchmarks, with their standard splits, and Fashion-MNIST.

They are read from ``../shared/data`` beside the repository unless another folder is named.
"""

import pathlib

import numpy as np

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
# With 20 standard splits.
REGRESSION = ("boston", "concrete", "energy", "kin8nm", "power-plant", "yacht")
# With two splits.
OTHER_REGRESSION = ("cpu_act", "puma8NH", "wind", "mv", "pol")
# More than 5,000 rows.
LARGER_REGRESSION = ("kin8nm", "power-plant", *OTHER_REGRESSION)
# At most 1,100 rows.
SMALL = (
    "balance-scale",
    "breast-cancer-wisc-diag",
    "credit-approval",
    "dermatology",
    "ecoli",
    "energy-y1",
    "energy-y2",
    "glass",
    "ionosphere",
    "iris",
    "libras",
    "pima",
    "statlog-australian-credit",
    "statlog-vehicle",
    "tic-tac-toe",
    "wine",
)
# Above, and at most 5,000 rows.
LARGER = (
    "abalone",
    "car",
    "cardiotocography-10clases",
    "cardiotocography-3clases",
    "molec-biol-splice",
    "semeion",
    "spambase",
    "statlog-image",
    "waveform",
    "waveform-noise",
    "yeast",
)
# With a file of test rows, or more than 5,000 rows: published means leave them out.
APART = ("image-segmentation", "magic", "optical")


def load_splits(data, name):
    """Standard splits of a set, each as (X, y, X_test, y_test); a set with a file of test rows has just that one."""
    folder = "regression" if name in (*REGRESSION, *OTHER_REGRESSION) else "classification"
    z = np.load(data / folder / f"{name}.npz")
    X, y = z["X"], z["y"]
    if "X_test" in z:
        return [(X, y, z["X_test"], z["y_test"])]
    if folder == "regression":
        fitting_and_test = zip(z["train_idx"], z["test_idx"], strict=True)
    else:
        fitting_and_test = ((~test, test) for test in z["test_mask"])
    return [(X[fitting], y[fitting], X[test], y[test]) for fitting, test in fitting_and_test]


def load_images(data):
    """Fashion-MNIST as float32 in [0, 1]: X, y, X_test, y_test; None where it is missing."""
    path = data / "images" / "fashion-mnist-12k.npz"
    if not path.is_file():
        return None
    z = np.load(path)
    X, X_test = ((z[name] / 255).astype(np.float32) for name in ("X", "X_test"))
    return X, z["y"], X_test, z["y_test"]


def has_data(data, what):
    """Whether the folder is there; where it is not, what is left out is said."""
    if not data.is_dir():
        print(f"Left out: {what} (no data folder at {data}; see --data).")
    return data.is_dir()
