"""Tables and pictures of what compare.py measured."""

import math

import numpy as np
from common.results import distinct, pyplot, save_picture, select
from common.results import table as table_lines

# Colours and markers; what is drawn as one method in the pictures has one key.
STYLES = {
    "ours": ("#0b6e4f", "o-"),
    "ours, defaults": ("#0b6e4f", "o-"),
    "ours, steps chosen": ("#21a179", "s--"),
    # What the defaults are now, where "ours" stands for all searches: results of an earlier commit.
    "ours, one search": ("#21a179", "s--"),
    "PyTorch, Adam": ("#b23a48", "D-"),
    "PyTorch, Gauss-Newton": ("#e08e45", "^-"),
    "scikit-learn MLP, Adam": ("#5c6f9c", "x-"),
    "scikit-learn MLP, L-BFGS": ("#9c89b8", "v-"),
    "gradient boosting": ("#333333", "P:"),
    "gradient boosting, tuned": ("#7a7a7a", "P:"),
    "SVM": ("#c98ca7", "*:"),
    "SVM, tuned": ("#a05c7b", "*:"),
    "kernel ridge, tuned": ("#4f86c6", "h:"),
}
ADAM_RATES = ("PyTorch, Adam, rate 1e-3", "PyTorch, Adam, rate 1e-4")


def part(measured, name):
    return [result for result in measured["results"] if result["part"] == name]


def values(results, key):
    """In the order in which they were first measured."""
    return list(dict.fromkeys(result[key] for result in results))


def median_run(results):
    """Medians of seconds and error over the runs of all results; None where there are none."""
    runs = [run for result in results for run in result["runs"]]
    return np.median(runs, axis=0) if runs else None


def seconds_to_target(result):
    """Median over the seeds; infinite where most did not reach the target. A whole fit may end beyond the cap."""
    last = [curve[-1] for curve in result["runs"]]
    reached = [s if error <= result["target"] else math.inf for s, error in last]
    return float(np.median(reached)) if reached else math.inf


def least_error(result):
    """The seconds and the error of the best point of the first curve within the cap, None where it has none."""
    curve = [point for curve in result["runs"][:1] for point in curve if point[0] <= result["cap"]]
    return min(curve, key=lambda point: point[1], default=None)


def table(columns, rows):
    return "\n".join(table_lines(["", *columns], rows))


def width_cell(results):
    if not results:
        return "not run"
    (result,) = results
    seconds = seconds_to_target(result)
    if math.isfinite(seconds):
        return f"{seconds:.3g}"
    best = least_error(result)
    return "not reached" + (f" ({best[1]:.4f} at {best[0]:.3g} s)" if best else "")


def fit_cell(results):
    if not results:
        return "not run"
    run = median_run(results)
    return results[0].get("failed", "") if run is None else f"{run[1]:.4g} ({run[0]:.3g} s)"


def width_tables(measured):
    results = part(measured, "width")
    if not results:
        return []
    first = results[0]
    widths = values(results, "width")
    references = [
        f"{r['method']}: error {r['runs'][0][1]:.4f} in {r['runs'][0][0]:.3g} s"
        for r in part(measured, "references")
        if r["runs"]
    ]
    rows = [
        [method, *(width_cell(select(results, method=method, width=width)) for width in widths)]
        for method in values(results, "method")
    ]
    whole = [
        ["ours, defaults", *(fit_cell(as_fits(select(results, method="ours, defaults", width=w))) for w in widths)]
    ]
    columns = [f"m = {width}" for width in widths]
    return [
        "## Seconds to a test error, by width",
        f"{first['set']}, {first['n_rows']} training rows, two hidden layers of width m, target: a test RMSE of "
        f"{first['target']}, at most {first['cap']} s. Where it was not reached, in parentheses the lowest error.",
        "References, searches included: " + "; ".join(references) + ".",
        table(columns, rows),
        "Test RMSE of whole fits, and their seconds.",
        table(columns, whole),
        provenance(measured, "width"),
    ]


def as_fits(results):
    """Curves of one point as runs."""
    return [result | {"runs": [curve[-1] for curve in result["runs"]]} for result in results]


def set_table(measured):
    results = part(measured, "sets")
    if not results:
        return []
    sets = values(results, "set")
    rows = [
        [method, *(fit_cell(select(results, method=method, set=name)) for name in sets)]
        for method in values(results, "method")
    ]
    return [
        "## Error and seconds of fits on real sets",
        "Test RMSE, or errors in percent for the classification sets, and seconds of the fit, searches included; "
        "medians over the splits that were run.",
        table(sets, rows),
        provenance(measured, "sets"),
    ]


def row_table(measured):
    results = part(measured, "rows")
    if not results:
        return []
    sizes = values(results, "n_rows")
    rows = [
        [method, *(fit_cell(select(results, method=method, n_rows=n)) for n in sizes)]
        for method in values(results, "method")
    ]
    return [
        "## Growing numbers of rows",
        "Friedman's first function, 16 features, noise of unit variance: distance of the predictions from the function "
        "itself (root mean square), and seconds of the fit, searches included.",
        table([f"n = {n}" for n in sizes], rows),
        provenance(measured, "rows"),
    ]


def provenance(measured, name):
    """Where and when a part was measured."""
    return "\n".join(
        f"Measured with the package of commit {head['commit']}; {head['machine']}; threads of every method: "
        f"{head['threads']}, seconds {'of the processor' if head['threads'] == 1 else 'of the clock on the wall'}; "
        f"load of the machine as measuring began: {head['load']}."
        for head in measured["heads"][name]
    )


def tables(measured):
    blocks = [
        "# Figures beside other methods",
        "Repeat with `python benchmarks/peers/compare.py measure`. What is above the threads of a method in the load "
        "of the machine are other processes, which slow down processor seconds too. The tables are from different "
        "machines: compare seconds within each.",
        *width_tables(measured),
        *set_table(measured),
        *row_table(measured),
    ]
    return "\n\n".join(blocks) + "\n"


def draw(measured):
    plt = pyplot("peers")
    pictures = {"width": ("time_to_accuracy", draw_width), "sets": ("peers_sets", draw_sets)}
    pictures["rows"] = "peers_rows", draw_rows
    for name, (file, picture) in pictures.items():
        if results := part(measured, name):
            save_picture(picture(plt, results, measured), file)


def faster_rate(results):
    """One result of Adam for every width in the place of two: the rate that was faster, or else more accurate."""

    def badness(result):
        best = least_error(result)
        return seconds_to_target(result), math.inf if best is None else best[1]

    others = [result for result in results if result["method"] not in ADAM_RATES]
    adam = [result for result in results if result["method"] in ADAM_RATES]
    for width in values(adam, "width"):
        others.append(min(select(adam, width=width), key=badness) | {"method": "PyTorch, Adam"})
    return others


def draw_width(plt, results, measured):
    first = results[0]
    figure, axes = plt.subplots(figsize=(6.4, 5.8), layout="constrained")
    rates = [rate for rate in ADAM_RATES if select(results, method=rate)]
    results = faster_rate(results)
    labels = {
        "ours, defaults": "ours: the whole fit with its own stopping",
        "ours, steps chosen": "ours: as many steps as the target takes",
        "PyTorch, Adam": "dense, PyTorch Adam" + " (faster of two rates)" * (len(rates) > 1),
        "PyTorch, Gauss-Newton": "dense, PyTorch Gauss-Newton",
        "scikit-learn MLP, Adam": "dense, scikit-learn MLP, Adam",
        "scikit-learn MLP, L-BFGS": "dense, scikit-learn MLP, L-BFGS",
    }
    seconds = [seconds_to_target(result) for result in results]
    limit = 1.1 * max(first["cap"], *(s for s in seconds if math.isfinite(s)))
    missed = 0
    for method, label in labels.items():
        points = sorted((r["width"], seconds_to_target(r)) for r in select(results, method=method))
        colour, style = STYLES[method]
        reached = [point for point in points if math.isfinite(point[1])]
        axes.plot(*zip(*reached, strict=True) if reached else ([], []), style, color=colour, label=label)
        if over := [width for width, seconds in points if math.isinf(seconds)]:
            # One above the other, so that none hides another.
            height = limit * 1.2 * 1.25**missed
            missed += 1
            axes.plot(over, [height] * len(over), style[0], color=colour, markerfacecolor="none", clip_on=False)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.axhline(limit, color="black", linewidth=0.8)
    left = min(r["width"] for r in results)
    axes.annotate(
        f"above: never, or not within {first['cap']} s",
        (left, limit),
        xytext=(0, -10),
        textcoords="offset points",
        fontsize=9,
    )
    for fit in as_fits(select(results, method="ours, defaults")):
        seconds, error = median_run([fit])
        # Above the line, and within the picture.
        offset, side = ((-10, -2), "right") if fit["width"] == max(values(results, "width")) else ((-6, 8), "left")
        axes.annotate(
            f"RMSE {error:.3f}", (fit["width"], seconds), offset, textcoords="offset points", fontsize=9, ha=side
        )
    # Only the best of them came near the target.
    for reference in sorted(part(measured, "references"), key=lambda r: r["runs"][0][1])[:1]:
        seconds, error = reference["runs"][0]
        colour = STYLES[reference["method"]][0]
        axes.axhline(
            seconds, color=colour, linewidth=1, linestyle=":", label=f"{reference['method']} (error {error:.4f})"
        )
    widths = distinct(results, "width")
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.set_xlabel("width m of both hidden layers")
    axes.set_ylabel("seconds")
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=9)
    data = f"{first['set']}, {first['n_rows']} rows, {threads(measured, 'width')}"
    axes.set_title(f"Seconds until the test RMSE is {first['target']}\n{data}", fontsize=11, loc="left")
    return figure


def threads(measured, name):
    n_threads = measured["heads"][name][0]["threads"]
    return "one core" if n_threads == 1 else f"{n_threads} cores"


# Where a logarithmic axis of errors has ticks, times powers of ten.
TICKS = (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8)


def label_errors(axes):
    """Plain numbers: ranges are so short that powers of ten alone would leave one tick or none."""
    low, high = axes.get_ylim()
    ticks = [tick * 10.0**power for power in range(-3, 3) for tick in TICKS if low <= tick * 10.0**power <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.minorticks_off()


def draw_sets(plt, results, measured):
    sets = values(results, "set")
    figure, panels = plt.subplots(2, (len(sets) + 1) // 2, figsize=(8.2, 6.8), layout="constrained", squeeze=False)
    for axes, name in zip(panels.flat, sets, strict=False):
        for method in values(results, "method"):
            run = median_run(select(results, set=name, method=method))
            if run is not None:
                colour, style = STYLES[method]
                axes.loglog(*run, style[0], color=colour, label=method, markersize=7)
        label_errors(axes)
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(alpha=0.3, which="both")
    for axes in panels.flat[len(sets) :]:
        axes.set_axis_off()
    for axes in panels[-1]:
        axes.set_xlabel("seconds of the fit")
    for axes in panels[:, 0]:
        axes.set_ylabel("test error")
    handles = {
        label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", fontsize=8, ncols=4)
    figure.suptitle(f"Test error (RMSE; errors in percent) and seconds, {threads(measured, 'sets')}", fontsize=10)
    return figure


def draw_rows(plt, results, measured):
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.4, 7.6), layout="constrained")
    sizes = distinct(results, "n_rows")
    for method in values(results, "method"):
        chosen = [(r["n_rows"], *median_run([r])) for r in select(results, method=method) if r["runs"]]
        if not chosen:
            continue
        n_rows, seconds, errors = zip(*sorted(chosen), strict=True)
        colour, style = STYLES[method]
        above.loglog(n_rows, seconds, style, color=colour, label=method)
        below.loglog(n_rows, errors, style, color=colour)
    label_errors(below)
    for axes, title in ((above, "Seconds of the fit"), (below, "Distance from the function (RMS)")):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("training rows")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.minorticks_off()
        axes.grid(alpha=0.3, which="both")
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", fontsize=9, ncols=2)
    figure.suptitle(
        f"Friedman's first function, 16 features,\nnoise of unit variance, {threads(measured, 'rows')}", fontsize=10
    )
    return figure
