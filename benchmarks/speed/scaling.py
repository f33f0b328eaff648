"""Seconds per iteration (by phase) and peak memory against the width, ours, dense and scikit-learn's MLP.

python benchmarks/speed/scaling.py measure   # about ten minutes; results/scaling.json
python benchmarks/speed/scaling.py report    # results/scaling.md and doc/images/scaling.svg (needs matplotlib)
python benchmarks/speed/scaling.py --smoke

Every width runs in a process of its own, so that its peak memory is known.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time
import warnings

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import command_line
from common.provenance import commit, machine
from common.results import RESULTS, load, pyplot, save, save_picture, select, table
from suite.problems import friedman, network_inputs

N_ROWS = 1024
# What is timed, and the widths up to which that is done in reasonable time and memory.
SERIES = {
    "auto": "density auto, m^(-1/5)",
    "theory": "density m^(-0.3)",
    "0.25": "density 0.25",
    "0.05": "density 0.05",
    "dense": "dense NumPy, the same iteration",
    "mlp": "scikit-learn's MLPRegressor, one epoch",
}
WIDTHS = (1024, 2048, 4096, 8192, 16384, 32768)
LARGEST = {"dense": 16384, "mlp": 8192, "0.25": 16384, "0.05": 16384}
# Steps of a timed fit, and how often it is repeated up to a width; the median counts.
STEPS, REPEATS, REPEATED_UP_TO = 4, 3, 8192
# The slope is fitted from this width on: below, a step is mostly the Gram matrix and the factorisation.
FITTED_FROM = 2048


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed_model(width, density):
    """What is timed: a fit of `STEPS` steps of all rows at once, none of which is rejected.

    The density is "auto" or a number.
    """
    from sklearn_subquad import SubquadMLPRegressor

    return SubquadMLPRegressor(
        hidden_layer_sizes=(width, width),
        density=density,
        batch_size=N_ROWS,
        damping=1.0,
        max_iter=STEPS,
        tol=0.0,
        n_iter_no_change=STEPS + 1,
        early_stopping=False,
        random_state=0,
    )


def time_ours(width, density, n_rows, repeats=REPEATS):
    """Median seconds per iteration by phase, over fits of `STEPS` steps; initialisation apart."""
    density = {"auto": "auto", "theory": width**-0.3}.get(density) or float(density)
    X, y = friedman(n_rows)
    model = timed_model(width, density)
    fits = []
    for _ in range(repeats if width <= REPEATED_UP_TO else 1):
        model.fit(X, y)
        phases = dict(model.phase_times_)
        # A fit makes one forward pass more than it takes steps.
        phases["forward"] *= model.n_iter_ / (model.n_iter_ + 1)
        init = phases.pop("init")
        fits.append({"init": init} | {name: seconds / model.n_iter_ for name, seconds in phases.items()})
    medians = {name: float(np.median([fit[name] for fit in fits])) for name in fits[0]}
    total = [sum(seconds for name, seconds in fit.items() if name != "init") for fit in fits]
    return {"seconds": float(np.median(total)), "phases": medians, "iterations": model.n_iter_}


def time_dense(width, n_rows):
    from speed.dense import DenseNetwork

    x, y = network_inputs(*friedman(n_rows))
    network = DenseNetwork.initialise(width, x, width**-0.2, init_scale=0.05 * np.sqrt(2048 / width))
    state = network.forward(x)
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        state = network.iteration(x, y, *state, damping=1.0)
        seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds))}


def time_mlp(width, n_rows):
    from sklearn.neural_network import MLPRegressor

    X, y = friedman(n_rows)
    model = MLPRegressor(hidden_layer_sizes=(width, width), random_state=0, max_iter=1)
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
        for _ in range(REPEATS):
            start = time.perf_counter()
            model.partial_fit(X, y)
            seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds))}


def run_one(series, width, n_rows):
    """One measurement, in this process."""
    before = peak_bytes()
    if series == "dense":
        result = time_dense(width, n_rows)
    elif series == "mlp":
        result = time_mlp(width, n_rows)
    else:
        result = time_ours(width, series, n_rows)
    return {"series": series, "width": width, "peak_bytes": peak_bytes(), "bytes_before": before} | result


def measure(widths, series):
    results, measured_commit = [], commit()
    for width in widths:
        for name in series:
            if width <= LARGEST.get(name, max(WIDTHS)):
                command = [sys.executable, __file__, "one", name, str(width)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout))
                print_result(results[-1])
    # Only now, because a child's peak memory begins at what its parent holds.
    save("scaling.json", {"commit": measured_commit, "machine": machine(), "n_rows": N_ROWS, "results": results}, 2)


def print_result(result):
    gib = result["peak_bytes"] / 2**30
    print(f"{result['series']:>7} m = {result['width']:6d}: {result['seconds']:8.3f} s, peak {gib:.2f} GiB", flush=True)


def slope(points):
    """Exponent of a power law fitted to (width, seconds) from `FITTED_FROM` on, or None for fewer than three."""
    points = [(width, seconds) for width, seconds in points if width >= FITTED_FROM]
    if len(points) < 3:
        return None
    return float(np.polyfit(*np.log(np.array(points)).T, 1)[0])


def by_series(results):
    found = {name: sorted(select(results, series=name), key=lambda r: r["width"]) for name in SERIES}
    return {name: of_series for name, of_series in found.items() if of_series}


def page(measured):
    series = by_series(measured["results"])
    widths = sorted({r["width"] for r in measured["results"]})
    columns = ["", *(f"m = {width}" for width in widths)]
    rows = []
    for name, results in series.items():
        cells = {r["width"]: f"{r['seconds']:.3g}" for r in results}
        exponent = slope([(r["width"], r["seconds"]) for r in results])
        last = np.log2(results[-1]["seconds"] / results[-2]["seconds"]) if len(results) > 1 else None
        slopes = ["" if number is None else f"{number:.2f}" for number in (exponent, last)]
        rows.append([SERIES[name], *(cells.get(width, "") for width in widths), *slopes])
    lines = [
        f"Seconds per iteration, {measured['n_rows']} rows, two hidden layers of width m, one output, float32.",
        "",
    ]
    lines += table([*columns, f"slope from m = {FITTED_FROM}", "of the last doubling"], rows)
    rows = []
    for name, results in series.items():
        cells = {r["width"]: f"{r['peak_bytes'] / 2**30:.2f}" for r in results}
        rows.append([SERIES[name], *(cells.get(width, "") for width in widths)])
    lines += ["", "Peak memory of the process, GiB.", "", *table(columns, rows)]
    phases = [phase for phase in series["auto"][0]["phases"] if phase != "stopping"]
    rows = [[f"m = {r['width']}", *(f"{r['phases'][phase]:.3f}" for phase in phases)] for r in series["auto"]]
    lines += ["", "Phases at density auto: seconds per iteration (init: once).", "", *table(["", *phases], rows)]
    lines += ["", f"Measured at commit {measured['commit']}. Machine: {measured['machine']}."]
    return "\n".join([*lines, "", "Repeat with `python benchmarks/speed/scaling.py measure`.", ""])


def draw(measured):
    plt, series, n_rows = pyplot("scaling"), by_series(measured["results"]), measured["n_rows"]
    styles = {
        "auto": ("#0b6e4f", "o-"),
        "theory": ("#21a179", "s--"),
        "0.25": ("#7fb069", "^:"),
        "0.05": ("#c3d898", "v:"),
    }
    styles |= {"dense": ("#b23a48", "D-"), "mlp": ("#7a7a7a", "x-")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name, results in series.items():
        colour, style = styles[name]
        widths = [r["width"] for r in results]
        exponent = slope([(r["width"], r["seconds"]) for r in results])
        label = SERIES[name] + ("" if exponent is None else f" (slope {exponent:.2f})")
        left.loglog(widths, [r["seconds"] for r in results], style, color=colour, label=label)
        right.loglog(widths, [r["peak_bytes"] / 2**30 for r in results], style, color=colour, label=SERIES[name])
    left.set_ylim(bottom=0.004)
    right.set_ylim(bottom=2e-4)
    ticks = sorted({r["width"] for results in series.values() for r in results})
    weights = [4 * width**2 / 2**30 for width in ticks]
    right.loglog(ticks, weights, color="black", linewidth=0.8, label="the m × m weights alone")
    for axes, title in ((left, "Seconds per iteration"), (right, "Peak memory, GiB")):
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("width m")
        axes.set_title(title, loc="left")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower right")
    figure.suptitle(f"Two hidden layers of width m, {n_rows} rows, one output, single precision, 2 cores", fontsize=10)
    save_picture(figure, "scaling")


def main():
    parser = command_line(__doc__)
    parser.add_argument("command", nargs="?", choices=["measure", "report"], default="measure")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--series", nargs="+", choices=SERIES, default=SERIES)
    arguments = parser.parse_args()
    if arguments.smoke:
        for name in SERIES:
            print_result(run_one(name, 256, 64))
        print(page(load("scaling.json")))
    elif arguments.command == "report":
        measured = load("scaling.json")
        (RESULTS / "scaling.md").write_text(page(measured), encoding="utf-8")
        draw(measured)
    else:
        measure(arguments.widths, arguments.series)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(run_one(sys.argv[2], int(sys.argv[3]), N_ROWS)))
    else:
        main()
