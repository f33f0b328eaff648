"""Seconds per iteration (by phase) and peak memory against the width, ours, dense and scikit-learn's MLP.

python benchmarks/scaling.py measure      # about ten minutes; writes results/scaling.json
python benchmarks/scaling.py report       # writes results/scaling.md and doc/images/scaling.svg (needs matplotlib)
python benchmarks/scaling.py measure --smoke

Every width runs in a process of its own, so that its peak memory is known.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from provenance import commit, machine
from suite.problems import friedman, network_inputs

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results" / "scaling.json"
TABLE = HERE / "results" / "scaling.md"
PICTURE = HERE.parent / "doc" / "images" / "scaling.svg"

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
    """What is timed: a fit of `STEPS` steps, none of which is rejected. The density is "auto" or a number."""
    from sklearn_subquad import SubquadMLPRegressor

    return SubquadMLPRegressor(
        hidden_layer_sizes=(width, width),
        density=density,
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
    from dense import DenseNetwork

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


def measure(widths, n_rows, series, path):
    results, measured_commit = [], commit()
    for width in widths:
        for name in series:
            if width > LARGEST.get(name, max(WIDTHS)):
                continue
            command = [sys.executable, __file__, "one", name, str(width), str(n_rows)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            result = json.loads(done.stdout)
            print(f"{name:>7} m = {width:6d}: {result['seconds']:8.3f} s, peak {result['peak_bytes'] / 2**30:.2f} GiB")
            results.append(result)
    if path is not None:
        # Only now, because a child's peak memory begins at what its parent holds.
        measured = {"commit": measured_commit, "machine": machine(), "n_rows": n_rows, "results": results}
        path.write_text(json.dumps(measured, indent=1) + "\n")


def slope(points):
    """Exponent of a power law fitted to (width, seconds) from `FITTED_FROM` on, or None for fewer than three."""
    points = [(width, seconds) for width, seconds in points if width >= FITTED_FROM]
    if len(points) < 3:
        return None
    return float(np.polyfit(*np.log(np.array(points)).T, 1)[0])


def by_series(results):
    return {
        name: sorted((r for r in results if r["series"] == name), key=lambda r: r["width"])
        for name in SERIES
        if any(r["series"] == name for r in results)
    }


def report():
    measured = json.loads(RESULTS.read_text())
    series = by_series(measured["results"])
    widths = sorted({r["width"] for r in measured["results"]})
    lines = [
        f"Seconds per iteration, {measured['n_rows']} rows, two hidden layers of width m, one output, float32.",
        "",
        "| | "
        + " | ".join(f"m = {width}" for width in widths)
        + f" | slope from m = {FITTED_FROM} | of the last doubling |",
        "|---" * (len(widths) + 3) + "|",
    ]
    for name, results in series.items():
        cells = {r["width"]: f"{r['seconds']:.3g}" for r in results}
        exponent = slope([(r["width"], r["seconds"]) for r in results])
        last = np.log2(results[-1]["seconds"] / results[-2]["seconds"]) if len(results) > 1 else None
        row = [SERIES[name], *(cells.get(width, "") for width in widths)]
        row += ["" if number is None else f"{number:.2f}" for number in (exponent, last)]
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "Peak memory of the process, GiB.", "", "| | " + " | ".join(f"m = {w}" for w in widths) + " |"]
    lines.append("|---" * (len(widths) + 1) + "|")
    for name, results in series.items():
        cells = {r["width"]: f"{r['peak_bytes'] / 2**30:.2f}" for r in results}
        lines.append(f"| {SERIES[name]} | " + " | ".join(cells.get(width, "") for width in widths) + " |")
    phases = [phase for phase in series["auto"][0]["phases"] if phase != "stopping"]
    lines += ["", "Phases at density auto: seconds per iteration (init: once)."]
    lines += ["", "| | " + " | ".join(phases) + " |", "|---" * (len(phases) + 1) + "|"]
    for r in series["auto"]:
        lines.append(f"| m = {r['width']} | " + " | ".join(f"{r['phases'][phase]:.3f}" for phase in phases) + " |")
    lines += ["", f"Measured at commit {measured['commit']}. Machine: {measured['machine']}."]
    lines += ["", "Repeat with `python benchmarks/scaling.py measure`.", ""]
    TABLE.write_text("\n".join(lines))
    draw(series, measured["n_rows"])
    print(TABLE.read_text())


def draw(series, n_rows):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot as plt

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
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("measure")
    command.add_argument("--smoke", action="store_true", help="small widths, nothing written")
    command.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    command.add_argument("--series", nargs="+", choices=SERIES, default=SERIES)
    commands.add_parser("report")
    command_one = commands.add_parser("one")
    command_one.add_argument("series", choices=SERIES)
    command_one.add_argument("width", type=int)
    command_one.add_argument("n_rows", type=int)
    arguments = parser.parse_args()
    if arguments.command == "one":
        print(json.dumps(run_one(arguments.series, arguments.width, arguments.n_rows)))
    elif arguments.command == "report":
        report()
    elif arguments.smoke:
        measure((256,), 64, SERIES, None)
    else:
        measure(arguments.widths, N_ROWS, arguments.series, RESULTS)
