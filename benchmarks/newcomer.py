"""How long a newcomer waits: clone, install and first fits by the README's command, then the page on one's own CSV.

    python benchmarks/newcomer.py       # some minutes; needs git, and the network for pip

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

from provenance import commit, print_provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent


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


def main():
    print_provenance()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    guide = (ROOT / "doc" / "guide" / "own_csv.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        clone = folder / "clone"
        environment = os.environ | {"PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        run("clone", f"git clone -q {ROOT} {clone}", folder, environment)
        run("virtual environment", f"{sys.executable} -m venv {folder / 'venv'}", folder, environment)
        # What the README says, one command at a time.
        install, first_fits = command_after("quickstart", readme).split(" && ")
        run(install, install, clone, environment)
        printed = run(first_fits, first_fits, clone, environment)
        run("pandas, for the CSV", "python -m pip install pandas", clone, environment)
        program = folder / "own_csv.py"
        program.write_text("\n".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL)), encoding="utf-8")
        own = run("own CSV", f"python {program}", folder, environment)
    print(f"words to read: README.md {n_words(readme)}, own_csv.md {n_words(guide)}")
    print(
        f"\nThe quickstart's table, commit {commit()}:\n{printed[printed.rindex('data  ') :]}\nThe CSV's output:\n{own}"
    )


if __name__ == "__main__":
    main()
