"""Tables and pictures of what measure.py found.

python benchmarks/theory/report.py             # results/theory.md and doc/images/claim_*.svg (needs matplotlib)
python benchmarks/theory/report.py --smoke     # nothing written
"""

import pathlib
import sys
from operator import itemgetter

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import command_line
from common.results import RESULTS, distinct, load, pyplot, save_picture, select, table
from speed.scaling import FITTED_FROM, slope
from theory.measure import BASE, KINDS, POWERS, SETTINGS, SKETCH_DAMPINGS, TARGETS

COLOURS = ("#0b6e4f", "#b23a48", "#2f5d8a", "#c58b1b", "#7a4b94", "#7a7a7a")
NAMES = {"paper": "as in the paper", "default": "package default", "mirrored": "as in the paper, mirrored"}
TARGET_NAMES = {"random": "random labels", "smooth": "smooth target"}
SKETCH_NAMES = {"tensor_srht": "TensorSRHT", "tensor_sketch": "TensorSketch", "gaussian": "Gaussian matrix"}


def main(smoke):
    measured = load("theory.json")
    text = "\n".join([*costs(measured), *falls(measured), *conditions(measured), *origin(measured)])
    if not smoke:
        (RESULTS / "theory.md").write_text(text, encoding="utf-8")
        plot(measured)
    print(text)


# ---- tables -----------------------------------------------------------------------------------------------


def operations(entry):
    return sum(entry[kind] for kind in KINDS)


def with_weights(entry):
    return entry["through_weights"] + entry["into_weights"]


def exponent(entries, value):
    number = slope([(entry["width"], value(entry)) for entry in entries])
    return "" if number is None else f"{number:.2f}"


def costs(measured):
    counted, timed = measured["counts"]["results"], measured["seconds"]["results"]
    widths = distinct(counted, "width")
    head = ["", *(f"m = {width}" for width in widths), f"exponent from m = {FITTED_FROM}"]
    quantities = {
        "operations with W, forward and backward, 1e9": lambda entry: entry["through_weights"] / 1e9,
        "operations of folding into W, 1e9": lambda entry: entry["into_weights"] / 1e9,
        "other operations, 1e9": lambda entry: (entry["elsewhere"] + entry["dense"]) / 1e9,
        "all operations, 1e9": lambda entry: operations(entry) / 1e9,
        "share of active neurons": itemgetter("active"),
        "weights fetched, over all of W": lambda entry: entry["weights_fetched"] / entry["n_weights"],
        "weights written, over all of W": lambda entry: entry["weights_written"] / entry["n_weights"],
        "share of inputs of W active on any row": itemgetter("inputs_used"),
        "share of outputs of W active on any row": itemgetter("outputs_used"),
    }
    lines = [
        "# The paper's claims, measured",
        "",
        "`benchmarks/theory/measure.py`; [what it says of the claims](../../doc/paper_claims.md).",
        "",
        f"## An iteration on {counted[0]['n_rows']} rows, two hidden layers, one output",
        "",
    ]
    for power in POWERS:
        entries = select(counted, power=power)
        rows = [
            [name, *(f"{value(entry):.3g}" for entry in entries), exponent(entries, value)]
            for name, value in quantities.items()
        ]
        of_power = select(timed, power=power)
        seconds = {entry["width"]: f"{entry['seconds']:.3g}" for entry in of_power}
        cells = [seconds.get(width, "") for width in widths]
        rows.append(["processor seconds, all cores", *cells, exponent(of_power, itemgetter("seconds"))])
        lines += [f"Density m^({power}).", "", *table(head, rows), ""]
    rows = []
    for power in POWERS:
        entries = select(measured["gaussian"]["results"], power=power)
        exponents = (exponent(entries, value) for value in (with_weights, operations, itemgetter("active")))
        rows.append([f"m^({power})", f"{2 + power:.1f}", *exponents])
    head = ["density", "2 + power", "operations with and into W", "all operations", "active neurons"]
    lines += [f"Exponents from Gaussian initial weights, m = {FITTED_FROM} to {entries[-1]['width']}.", ""]
    lines += [*table(head, rows), ""]
    lines += [f"Seconds are medians of {timed[0]['rounds']} rounds over all widths and densities in turn.", ""]
    return lines


def falls(measured):
    entries = measured["convergence"]["results"] + measured["depths"]["results"]
    columns = [(setting.name, target) for setting in SETTINGS for target in TARGETS]
    cases = {}
    for entry in entries:
        varied = entry["density"] if "dens" in entry["series"] else "theory"
        case = (entry["n_rows"], entry["width"], entry["depth"], entry["damping"], varied)
        cases.setdefault(case, {})[entry["setting"], entry["target"]] = entry
    lines = [
        "## How the distance from the targets falls",
        "",
        "At a damping that stays. The largest of the first five ratios ||f_{t+1} - y|| / ||f_t - y||, and in brackets "
        "the steps to 1 % of the first distance. The theoretical density is that of the shift sqrt(0.4 ln m) as in the "
        "paper, m^(-1/5) at the package's default.",
        "",
    ]
    rows = []
    for case, found in cases.items():
        cells = [found.get(column) for column in columns]
        of_cell = ["" if e is None else f"{worst_ratio(e):.2g} ({steps_to(e, 0.01) or '-'})" for e in cells]
        rows.append([*(str(value) for value in case), *of_cell])
    head = [f"{NAMES[setting]}, {TARGET_NAMES[target]}" for setting, target in columns]
    lines += [*table(["n", "m", "layers", "damping", "density", *head], rows), ""]
    lines += [
        "Neurons that flip in the first step, of all in each layer, from the first layer on; in brackets those active.",
        "",
    ]
    rows = [
        [str(n_rows), str(width), *(flips_of(found[column]) for column in columns)]
        for (n_rows, width, depth, damping, density), found in cases.items()
        if (depth, damping, density) == (BASE["depth"], BASE["damping"], "theory")
    ]
    return [*lines, *table(["n", "m", *head], rows), ""]


def flips_of(entry):
    flips = ", ".join(f"{100 * share:.2g} %" for share in entry["flips"][0])
    return f"{flips} ({100 * np.mean(entry['active']):.2g} %)"


def worst_ratio(entry):
    """Largest of the first five ratios, as far as they are above rounding; one where there was no step."""
    return max(entry["ratios"][:5], default=1.0)


def steps_to(entry, distance):
    """Steps until the distance is at most this, or None."""
    return next((step for step, reached in enumerate(entry["distances"]) if reached <= distance), None)


def conditions(measured):
    entries = measured["sketches"]["results"]
    lines = ["## Condition of the preconditioned system, and inner iterations to 0.001", ""]
    for damping in SKETCH_DAMPINGS:
        rows = []
        for kind in ("none", *SKETCH_NAMES):
            for n_rows in distinct(entries, "n_rows"):
                some = select(entries, kind=kind, n_rows=n_rows, damping=damping)
                cells = [f"{e['condition']:.3g} ({e['n_iter']})" for e in some]
                cells = cells + [""] * (7 - len(cells))
                rows.append([SKETCH_NAMES.get(kind, "none"), str(n_rows), *cells])
        columns = ("n/4", "n/2", "n", "1.5 n", "2 n", "4 n", "8 n")
        lines += [f"Damping {damping}; columns of the sketch:", "", *table(["", "rows", *columns], rows), ""]
    return lines


def origin(measured):
    """Where the figures come from."""
    machines = {each["machine"] for each in measured.values()}
    commits = {each["commit"] for each in measured.values()}
    return [
        f"Measured on the package at commit {', '.join(sorted(commits))}. Machine, shared with other work: "
        f"{'; '.join(sorted(machines))}.",
        "",
    ]


# ---- plots ------------------------------------------------------------------------------------------------


def plot(measured):
    """Write all plots."""
    pyplot("theory").rcParams.update({"font.size": 9, "legend.fontsize": 7.5})
    for name, draw in {
        "weights": draw_weights,
        "cost": draw_cost,
        "convergence": draw_convergence,
        "limits": draw_limits,
        "flips": draw_flips,
        "sketches": draw_sketches,
    }.items():
        save_picture(draw(measured), f"claim_{name}")


def panels(n_panels, titles, height=3.6):
    """A figure with so many axes, two beside each other: more would be too small on a page of text."""
    from matplotlib import pyplot as plt

    rows = -(-n_panels // 2)
    figure, grid = plt.subplots(rows, 2, figsize=(8.2, height * rows), layout="constrained")
    axes, empty = np.split(np.ravel(grid), [n_panels])
    for axis in empty:
        axis.set_axis_off()
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, loc="left", fontsize=9)
        axis.grid(alpha=0.3)
    return figure, axes


def width_axis(axis, widths):
    axis.set_xscale("log")
    axis.set_xticks(widths, [str(width) for width in widths], fontsize=7.5)
    axis.minorticks_off()
    axis.set_xlabel("width m")


def draw_weights(measured):
    counted, dependence = measured["counts"]["results"], measured["rows"]["results"]
    widths = distinct(counted, "width")
    n_rows = counted[0]["n_rows"]
    titles = (
        f"Operations with W an iteration, {n_rows} rows",
        "Weights that go through the cache an iteration",
        "Share of inputs of W active on any row",
    )
    figure, (left, middle, right) = panels(3, titles)
    for power, colour in zip(POWERS, COLOURS, strict=False):
        entries = select(counted, power=power)
        label = f"density m^({power}): slope {exponent(entries, with_weights)}"
        line(left, entries, with_weights, "o-", color=colour, label=label)
        entries = select(measured["gaussian"]["results"], power=power)
        label = f"the same, Gaussian weights: {exponent(entries, with_weights)}"
        line(left, entries, with_weights, ":", color=colour, label=label)
    left.loglog(widths, [6 * n_rows * width**2 for width in widths], "k--", linewidth=0.8, label="dense: slope 2")
    entries = select(counted, power=POWERS[0])
    for name, colour in (("fetched", COLOURS[0]), ("written", COLOURS[1])):
        value = itemgetter(f"weights_{name}")
        line(middle, entries, value, "o-", color=colour, label=f"{name}: slope {exponent(entries, value)}")
    middle.loglog(widths, [width**2 for width in widths], "k--", linewidth=0.8, label="m²")
    styles = {"paper": "o-", "default": "s--"}
    for setting, style in styles.items():
        for width, colour in zip(distinct(dependence, "width"), COLOURS, strict=False):
            entries = select(dependence, setting=setting, width=width)
            numbers, shares = ([entry[name] for entry in entries] for name in ("n_rows", "forward"))
            label = f"{NAMES[setting]}, m = {width}"
            right.semilogx(numbers, shares, style, color=colour, markersize=3, base=2, label=label)
    right.set_xlabel("rows n")
    right.set_xticks(numbers, [str(number) for number in numbers], fontsize=7.5)
    right.set_ylim(0, 1.02)
    for axis in (left, middle):
        width_axis(axis, widths)
    for axis in (left, middle, right):
        axis.legend(loc="upper left")
    left.set_ylim(top=1e15)
    right.legend(loc="lower right", fontsize=6.5)
    return figure


def draw_cost(measured):
    counted, timed = measured["counts"]["results"], measured["seconds"]["results"]
    n_rows = counted[0]["n_rows"]
    titles = (
        f"Operations counted, {n_rows} rows",
        "Processor seconds an iteration, all cores",
        "What operations are for, m^(-0.2)",
    )
    figure, (left, middle, right) = panels(3, titles)
    widths = distinct(counted, "width")
    for power, colour in zip(POWERS, COLOURS, strict=False):
        entries = select(counted, power=power)
        label = f"density m^({power}): slope {exponent(entries, operations)}"
        line(left, entries, operations, "o-", color=colour, label=label)
        entries = select(timed, power=power)
        label = f"density m^({power}): slope {exponent(entries, itemgetter('seconds'))}"
        line(middle, entries, itemgetter("seconds"), "o-", color=colour, label=label)
        band = zip(*map(itemgetter("width", "least", "most"), entries), strict=True)
        middle.fill_between(*band, color=colour, alpha=0.2, linewidth=0)
    entries = select(counted, power=POWERS[0])
    for (kind, name), colour in zip(KINDS.items(), COLOURS, strict=False):
        label = f"{name}: {exponent(entries, itemgetter(kind))}"
        line(right, entries, itemgetter(kind), "o-", color=colour, label=label)
    right.set_ylim(top=1e14)
    left.set_ylim(top=2e13)
    for axis in (left, middle, right):
        width_axis(axis, widths)
        axis.legend(loc="upper left")
    return figure


def line(axis, entries, value, style, **options):
    """A line over the width."""
    axis.loglog([entry["width"] for entry in entries], [value(entry) for entry in entries], style, **options)


def guides(axis, steps):
    """Lines that fall to a third and to a half in every step."""
    axis.semilogy(steps, [3.0**-step for step in steps], "k--", linewidth=0.8, label="1/3 a step")
    axis.semilogy(steps, [2.0**-step for step in steps], "k:", linewidth=0.8, label="1/2 a step")


def draw_convergence(measured):
    entries = select(measured["convergence"]["results"], series="width")
    sizes, widths = distinct(entries, "n_rows"), distinct(entries, "width")
    styles = {sizes[0]: "o-", sizes[-1]: "s--"}
    shown = [(setting.name, target) for setting in SETTINGS for target in TARGETS]
    titles = [f"{NAMES[setting]}, {TARGET_NAMES[target]}" for setting, target in shown]
    figure, axes = panels(4, titles, height=4.0)
    for axis, (setting, target) in zip(axes, shown, strict=True):
        guides(axis, range(9))
        for entry in select(entries, setting=setting, target=target):
            if entry["n_rows"] != sizes[1]:
                style, label = styles[entry["n_rows"]], f"m = {entry['width']}, n = {entry['n_rows']}"
                colour = COLOURS[widths.index(entry["width"])]
                axis.semilogy(entry["distances"][:9], style, markersize=3, color=colour, label=label)
        axis.set_ylim(3e-6, 2)
        axis.set_xlabel("step t")
    axes[0].set_ylabel("||f_t - y|| / ||f_0 - y||")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def draw_limits(measured):
    entries = measured["convergence"]["results"] + measured["depths"]["results"]
    names = ("width", "damping", "density", "depth")
    titles = ["Width over rows m / n", "Damping", "Density", "Hidden layers"]
    figure, axes = panels(4, titles)
    for axis, name in zip(axes, names, strict=True):
        for setting, colour in zip(SETTINGS, COLOURS, strict=False):
            for target, style in zip(TARGETS, ("o-", "s--"), strict=True):
                points = []
                for entry in select(entries, setting=setting.name, target=target):
                    if entry["series"] == name or (name != "width" and is_base(entry)):
                        place = entry["width"] / entry["n_rows"] if name == "width" else entry[name]
                        points.append((place, worst_ratio(entry)))
                xy = zip(*sorted(points), strict=True)
                label = f"{NAMES[setting.name]}, {TARGET_NAMES[target]}"
                axis.loglog(*xy, style[:1] if name == "width" else style, color=colour, markersize=4, label=label)
        axis.axhline(1 / 3, color="k", linestyle="--", linewidth=0.8)
        axis.set_ylim(1e-3, 2)
    axes[3].set_xticks((1, 2, 3, 4, 6, 8), ("1", "2", "3", "4", "6", "8"))
    axes[3].minorticks_off()
    axes[0].set_ylabel("largest of the first five ratios")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def is_base(entry):
    return entry["series"] == "width" and all(entry[name] == value for name, value in BASE.items())


def draw_flips(measured):
    entries = select(measured["convergence"]["results"], series="width")
    sizes, widths = distinct(entries, "n_rows"), distinct(entries, "width")
    figure, axes = panels(2, [NAMES[setting.name] for setting in SETTINGS])
    for axis, setting in zip(axes, SETTINGS, strict=True):
        for target, style in zip(TARGETS, ("o-", "s--"), strict=True):
            for n_rows, colour in zip(sizes, COLOURS, strict=False):
                some = [e for e in select(entries, setting=setting.name, target=target, n_rows=n_rows) if e["flips"]]
                label = f"{TARGET_NAMES[target]}, n = {n_rows}"
                line(axis, some, lambda e: np.mean(e["flips"][0]), style, color=colour, markersize=4, label=label)
        of_setting = [select(entries, setting=setting.name, width=width) for width in widths]
        active = [np.mean([np.mean(entry["active"]) for entry in of_width]) for of_width in of_setting]
        axis.loglog(widths, active, "k-", linewidth=0.8, label="active neurons")
        falling = [0.05 * (width / widths[0]) ** -0.5 for width in widths]
        axis.loglog(widths, falling, "k:", linewidth=0.8, label="m^(-1/2)")
        width_axis(axis, widths)
        axis.set_ylim(1e-4, 1)
    axes[0].set_ylabel("share of neurons that flip in the first step")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def draw_sketches(measured):
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullLocator

    entries = measured["sketches"]["results"]
    titles = [f"{what}, damping {damping}" for damping in SKETCH_DAMPINGS for what in ("Condition", "Inner iterations")]
    figure, axes = panels(4, titles)
    sizes = distinct(entries, "n_rows")
    styles = {"tensor_srht": "o-", "tensor_sketch": "s--", "gaussian": ":"}
    ticks = (0.25, 0.5, 1, 2, 4, 8)
    shown = [(damping, name) for damping in SKETCH_DAMPINGS for name in ("condition", "n_iter")]
    for axis, (damping, name) in zip(axes, shown, strict=True):
        for kind, style in styles.items():
            for n_rows, colour in zip(sizes, COLOURS, strict=False):
                some = select(entries, kind=kind, n_rows=n_rows, damping=damping)
                places = [entry["columns"] / n_rows for entry in some]
                axis.loglog(places, [entry[name] for entry in some], style, color=colour, markersize=3)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xlabel("columns of the sketch / n")
        axis.xaxis.set_minor_locator(NullLocator())
    for axis in axes[1::2]:
        axis.set_yticks(counts := (4, 6, 10, 20, 40, 100), [str(count) for count in counts])
        axis.yaxis.set_minor_locator(NullLocator())
    ratio = np.geomspace(1.15, 8, 60)
    axes[0].plot(ratio, ((1 + ratio**-0.5) / (1 - ratio**-0.5)) ** 2, "k-", linewidth=1)
    legend = [Line2D([], [], color=colour, label=f"n = {n}") for n, colour in zip(sizes, COLOURS, strict=False)]
    for kind, style in styles.items():
        marker, line = (style[0], style[1:]) if len(style) > 1 else ("", style)
        legend.append(
            Line2D([], [], color="gray", marker=marker, linestyle=line, markersize=3, label=SKETCH_NAMES[kind])
        )
    legend.append(Line2D([], [], color="k", linewidth=1, label="limit of Gaussian matrices without damping"))
    figure.legend(handles=legend, loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    main(command_line(__doc__).parse_args().smoke)
