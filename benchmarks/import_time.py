"""What importing the package adds to importing scikit-learn, in fresh processes, medians and quartiles of milliseconds.

python benchmarks/import_time.py
python benchmarks/import_time.py --smoke
"""

import argparse
import subprocess
import sys

import numpy as np
from provenance import print_provenance

IMPORT = """
import importlib, sys, time
for name in sys.argv[1:-1]:
    importlib.import_module(name)
start = time.perf_counter()
importlib.import_module(sys.argv[-1])
print(time.perf_counter() - start)
"""

# What is imported before, and then what is timed; the last is a part of scikit-learn itself, to compare with.
IMPORTS = {
    "sklearn_subquad after sklearn": ("sklearn", "sklearn_subquad"),
    "sklearn_subquad after sklearn.model_selection": ("sklearn", "sklearn.model_selection", "sklearn_subquad"),
    "sklearn.neural_network after sklearn": ("sklearn", "sklearn.neural_network"),
}


def milliseconds(names):
    """Time of the import of the last of them in a process of its own, away from the checkout."""
    command = [sys.executable, "-P", "-c", IMPORT, *names]
    return 1e3 * float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(n_runs):
    # Once each, so that no run is the first to read the files; then in turn, as others use the machine too.
    for names in IMPORTS.values():
        milliseconds(names)
    runs = np.array([[milliseconds(names) for names in IMPORTS.values()] for _ in range(n_runs)])
    for title, (low, median, high) in zip(IMPORTS, np.percentile(runs, [25, 50, 75], axis=0).T, strict=True):
        print(f"{title}: {median:.0f} ms ({low:.0f} to {high:.0f})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one run each, to see that everything runs")
    n_runs = 1 if parser.parse_args().smoke else 21
    print_provenance()
    measure(n_runs)
