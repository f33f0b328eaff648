"""How long a newcomer waits: clone, install and first fits by the README's command, then the page on one's own CSV.

    python benchmarks/speed/newcomer.py first_minutes    # some minutes; needs git, and the network for pip
    python benchmarks/speed/newcomer.py imports          # fresh processes that import the package
    python benchmarks/speed/newcomer.py --smoke          # finds the README's commands, and runs none

What is cloned is the commit that is checked out. The commands are those of README.md, the blocks those of
doc/guide/own_csv.md. Words are counted as well: people read some 200 a minute.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import run_chosen
from common.provenance import commit

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command_after(marker, page):
    """The fenced block after a marker comment."""
    return re.search(rf"<!-- {marker} -->\n```sh\n(.*?)\n```", page, re.DOTALL)[1]


def n_words(page):
    return len(re.sub(r"```.*?```", "", page, flags=re.DOTALL).split())


def run(title, command, folder, environment):
    """What it prints; how long it takes is printed here."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, shell=True, text=True, capture_output=True, check=False)
    print(f"{title}: {time.perf_counter() - start:.0f} s", flush=True)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def first_minutes(arguments):
    """Clone, install, first fits, an own CSV."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    guide = (ROOT / "doc" / "guide" / "own_csv.md").read_text(encoding="utf-8")
    print(f"words to read: README.md {n_words(readme)}, own_csv.md {n_words(guide)}")
    # What the README says, one command at a time.
    install, first_fits = command_after("quickstart", readme).split(" && ")
    if arguments.smoke:
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        clone = folder / "clone"
        environment = os.environ | {"PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        run("clone", f"git clone -q {ROOT} {clone}", folder, environment)
        run("virtual environment", f"{sys.executable} -m venv {folder / 'venv'}", folder, environment)
        run(install, install, clone, environment)
        printed = run(first_fits, first_fits, clone, environment)
        run("pandas, for the CSV", "python -m pip install pandas", clone, environment)
        program = folder / "own_csv.py"
        program.write_text("\n".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL)), encoding="utf-8")
        own = run("own CSV", f"python {program}", folder, environment)
    print(
        f"\nThe quickstart's table, commit {commit()}:\n{printed[printed.rindex('data  ') :]}\nThe CSV's output:\n{own}"
    )


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


def imports(arguments):
    """What importing the package adds to importing scikit-learn: medians and quartiles."""
    # Once each, so that no run is the first to read the files; then in turn, as others use the machine too.
    for names in IMPORTS.values():
        milliseconds(names)
        if arguments.smoke:
            return
    runs = np.array([[milliseconds(names) for names in IMPORTS.values()] for _ in range(21)])
    for title, (low, median, high) in zip(IMPORTS, np.percentile(runs, [25, 50, 75], axis=0).T, strict=True):
        print(f"{title}: {median:.0f} ms ({low:.0f} to {high:.0f})", flush=True)


if __name__ == "__main__":
    run_chosen(__doc__, (first_minutes, imports))
