"""Many rows: images against scikit-learn's MLP, and seconds and memory against the number of rows.

python benchmarks/speed/rows.py images linear     # about ten minutes
python benchmarks/speed/rows.py --smoke

Fashion-MNIST is read from ``../shared/data`` beside the repository (or --data) and left out where that is missing.
Every number of rows runs in a process of its own, so that its peak memory is known.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import run_chosen
from common.sets import load_images

MLP_EPOCHS = 15


def images(arguments):
    """A fit at the defaults against 15 epochs of scikit-learn's MLP at the same widths; support vector machines."""
    loaded = load_images(arguments.data)
    if loaded is None:
        print(f"images: left out, no Fashion-MNIST in {arguments.data}.")
        return
    X, y, X_test, y_test = loaded
    widths = (4096, 4096)
    if arguments.smoke:
        X, y, X_test, y_test, widths = X[:300], y[:300], X_test[:300], y_test[:300], (64, 64)
    mlp = MLPClassifier(widths, random_state=0, max_iter=1)
    epochs, ours = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for repeat in range(1 if arguments.smoke else 3):
            start = time.perf_counter()
            mlp.partial_fit(X, y, classes=np.unique(y))
            epochs.append(time.perf_counter() - start)
            model = SubquadMLPClassifier(hidden_layer_sizes=widths, random_state=repeat)
            start = time.perf_counter()
            model.fit(X, y)
            ours.append((time.perf_counter() - start, model.score(X_test, y_test), model.n_iter_))
    seconds, accuracy, passes = np.array(ours).T
    ratio = np.median(MLP_EPOCHS * np.array(epochs) / seconds)
    print(
        f"images, widths {widths}: ours {np.median(seconds):.1f} s, test accuracy "
        f"{', '.join(f'{share:.4f}' for share in accuracy)} (seeds 0, 1, ...), passes {passes.mean():.1f}; an epoch of "
        f"scikit-learn's MLP {np.median(epochs):.1f} s, {MLP_EPOCHS} of them take {ratio:.1f} times as long",
        flush=True,
    )
    for C in (3, 10):
        start = time.perf_counter()
        machine = SVC(C=C).fit(X, y)
        seconds = time.perf_counter() - start
        print(f"support vector machine, C={C}: {seconds:.1f} s, test accuracy {machine.score(X_test, y_test):.4f}")


def one_linear(n_rows, smoke):
    """A fit of synthetic rows in this process: seconds per pass and peak memory."""
    width, passes = (64, 1) if smoke else (2048, 2)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 50), dtype=np.float32)
    y = np.sin(X[:, 0] * X[:, 1]) + X[:, 2:10].sum(axis=1) / 3 + 0.1 * rng.standard_normal(n_rows)
    # One network, whose passes are over all rows: seconds of several are summed up, their passes are not.
    options = {"hidden_layer_sizes": (width, width), "max_iter": passes, "early_stopping": False}
    model = SubquadMLPRegressor(**options, random_state=0).fit(X, y)
    init = model.phase_times_["init"]
    seconds = (sum(model.phase_times_.values()) - init) / model.n_iter_
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "init": init, "peak_bytes": peak}


def linear(arguments):
    """Seconds per pass and peak memory for growing numbers of rows, 50 features, one output, widths (2048, 2048)."""
    sizes = (500, 1000) if arguments.smoke else (6250, 12500, 25000, 50000)
    print("rows, seconds per pass, microseconds per row, initialisation, peak memory of the process")
    for n_rows in sizes:
        if arguments.smoke:
            report = one_linear(n_rows, smoke=True)
        else:
            command = [sys.executable, __file__, "one_linear", str(n_rows)]
            report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{n_rows:6d}  {report['seconds']:6.2f} s  {1e6 * report['seconds'] / n_rows:6.0f} µs  "
            f"{report['init']:5.2f} s  {report['peak_bytes'] / 2**30:5.2f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["one_linear"]:
        print(json.dumps(one_linear(int(sys.argv[2]), smoke=False)))
    else:
        # The one that measures memory first: a child's peak begins at what its parent holds.
        run_chosen(__doc__, (linear, images))
