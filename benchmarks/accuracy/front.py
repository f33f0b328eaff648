"""A picture of errors against seconds of a fit, from the tables of accuracy.py.

    python benchmarks/accuracy/accuracy.py regression classification --peers --param n_folds=1    # one_network.md
    python benchmarks/accuracy/front.py          # doc/images/front.svg
    python benchmarks/accuracy/front.py --smoke  # what it would draw, as text

Seconds are those of one core: where a fit had two, as ours had, they count twice.
"""

import pathlib
import re
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import command_line
from common.results import RESULTS, pyplot, save_picture

CORES_OF_OURS = 2
ONE_NETWORK = "ours, n_folds=1"
HIGHLIGHTED = {"ours": "#0b6e4f", ONE_NETWORK: "#0b6e4f", "CatBoost": "#b23a48"}
CELL = re.compile(r"([\d.]+)(?: ± [\d.]+)? \(([\d.e-]+) s\)")


def table(page, title):
    """Errors and seconds by method, of all sets of a table."""
    text = (RESULTS / page).read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    head, _, *rows = (
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("| ")
    )
    of_sets = [row for row in rows if CELL.fullmatch(row[1])]
    methods = head[1 : sum(bool(CELL.fullmatch(cell)) for cell in of_sets[0]) + 1]
    cells = np.array([[CELL.fullmatch(cell).groups() for cell in row[1 : len(methods) + 1]] for row in of_sets], float)
    return {method: (cells[:, number, 0], cells[:, number, 1]) for number, method in enumerate(methods)}


def points(title):
    """By method the geometric mean of seconds on one core, and an error: relative to ours, or percent."""
    measured, single = table("accuracy.md", title), table("one_network.md", title)
    measured[ONE_NETWORK] = single["ours"]
    found = {}
    for method, (scores, seconds) in measured.items():
        cores = CORES_OF_OURS if method.startswith("ours") else 1
        error = 100 - scores.mean()
        if title == "Regression":
            error = np.exp(np.log(scores / measured["ours"][0]).mean())
        found[method] = cores * np.exp(np.log(seconds).mean()), error
    return found


def draw(panels):
    plt = pyplot("front")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        for method, (seconds, error) in found.items():
            colour = HIGHLIGHTED.get(method, "#7a7a7a")
            axis.plot(seconds, error, "o", color=colour)
            # Its name would lie on others.
            offset = (-14, -12) if method == "forest" else (5, 4)
            axis.annotate(method, (seconds, error), offset, textcoords="offset points", color=colour, fontsize=8)
        axis.set_xscale("log")
        axis.set_xlabel("seconds of a fit on one core, geometric mean")
        axis.margins(x=0.25, y=0.12)
        axis.set_title(title, fontsize=10)
    axes[0].set_ylabel("RMSE relative to ours, geometric mean")
    axes[1].set_ylabel("errors, %, mean")
    save_picture(figure, "front")


def main():
    arguments = command_line(__doc__).parse_args()
    titles = {"Regression": "11 regression sets", "Classification": "30 classification sets"}
    panels = {name: points(title) for title, name in titles.items()}
    for name, found in panels.items():
        print(name)
        for method, (seconds, error) in sorted(found.items(), key=lambda item: item[1][1]):
            print(f"    {method}: {seconds:.2f} s, {error:.3f}")
    if not arguments.smoke:
        draw(panels)


if __name__ == "__main__":
    main()
