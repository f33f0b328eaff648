"""Files of results: JSON with a line for each of them, tables in Markdown, pictures."""

import json
import pathlib

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
IMAGES = RESULTS.parents[1] / "doc" / "images"


def load(name):
    """What a file of results/ has, or nothing where there is none."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else {}


def save(name, stored, depth):
    """Write a file of results/, whole or not at all, with a line for every entry of the so many outer levels."""
    partial = RESULTS / f"{name}.partial"
    partial.write_text(_lines(stored, depth) + "\n")
    partial.replace(RESULTS / name)


def _lines(value, depth):
    if not depth or not value or not isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, list):
        return "[\n" + ",\n".join(_lines(each, depth - 1) for each in value) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(each, depth - 1)}" for key, each in value.items()) + "\n}"


def digits(value, n_digits):
    """The same with so many digits of every number."""
    return json.loads(json.dumps(value), parse_float=lambda number: float(f"{float(number):.{n_digits}g}"))


def select(results, **wanted):
    return [result for result in results if wanted.items() <= result.items()]


def distinct(results, key):
    """In order."""
    return sorted({result[key] for result in results})


def table(head, rows):
    """Lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, cells))} |" for cells in lines]


def pyplot(seed):
    """matplotlib.pyplot for pictures that come out the same every time."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = seed
    from matplotlib import pyplot

    return pyplot


def save_picture(figure, name, folder=IMAGES):
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
