"""The claims of the paper (arXiv 2112.07628), measured: what is counted, timed, and how fast the residual falls.

python benchmarks/theory/measure.py all          # an hour beside other work; writes results/theory.json
python benchmarks/theory/measure.py counts gaussian rows seconds convergence depths sketches      # or some of them
python benchmarks/theory/report.py               # results/theory.md and doc/images/claim_*.svg (needs matplotlib)
python benchmarks/theory/measure.py --smoke      # small problems, nothing written

counts: operations and weights of an iteration by width and density; gaussian: the same from Gaussian initial weights;
rows: weights that an iteration depends on, by its number of rows; seconds: those of the processor, of an iteration;
convergence: how the residual falls, and which neurons change; depths: the same by the number of layers; sketches:
condition and inner iterations by the columns of a sketch. doc/paper_claims.md says what came out.
"""

import dataclasses
import itertools
import pathlib
import sys
import time
from dataclasses import dataclass
from unittest import mock

import numpy as np
import scipy.linalg
from scipy.special import ndtr

from sklearn_subquad._curvature.losses import SquaredError
from sklearn_subquad._curvature.sketch import SKETCHES, JacobianSketch
from sklearn_subquad._curvature.sketch_features import sketch_features
from sklearn_subquad._fit.scaling import InputScaling
from sklearn_subquad._linalg.pcg import pcg
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.activations import auto_density
from sklearn_subquad._network.network import Architecture, Network
from sklearn_subquad._solver.levenberg_marquardt import Batch, LevenbergMarquardt
from sklearn_subquad._solver.options import SolverOptions
from sklearn_subquad._utils.stopwatch import Stopwatch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import command_line
from common.provenance import commit, machine
from common.results import digits, load, save
from speed.preconditioning import linearise
from speed.scaling import STEPS, time_ours, timed_model
from suite.problems import friedman
from theory.operation_counts import Counts, OperationCounter

# Densities are m to these powers.
POWERS = (-0.2, -0.3, -0.4)
WIDTHS = (1024, 2048, 4096, 8192, 16384, 32768)
N_ROWS = 512
# All widths and densities are timed so often, in turn.
ROUNDS = 2


def shifted_density(width):
    """Share of normal variables beyond the paper's shift b = sqrt(0.4 ln m): less than its bound exp(-b²/2)."""
    return float(ndtr(-np.sqrt(0.4 * np.log(width))))


# ---- what an iteration costs ------------------------------------------------------------------------------


def counts(smoke, init="axis_aligned", widths=WIDTHS):
    """Operations, and weights fetched and written, of an iteration on `N_ROWS` rows, by width and density."""
    widths, n_rows = ((128, 256, 512), 64) if smoke else (widths, N_ROWS)
    found = []
    for width in widths:
        for power in POWERS:
            counter = OperationCounter()
            with counter.counting():
                model = timed_model(width, width**power).set_params(init=init).fit(*friedman(n_rows))
            if model.n_iter_ != STEPS:
                raise ValueError(f"{model.n_iter_} steps instead of {STEPS}.")
            phases = dict(counter.phases)
            before, forward = phases.pop("init"), phases["forward"]
            # A fit makes one forward pass more than it takes steps.
            phases["forward"] = Counts(
                **{name: value * STEPS / (STEPS + 1) for name, value in dataclasses.asdict(forward).items()}
            )
            total = {
                field.name: sum(getattr(phase, field.name) for phase in phases.values()) / STEPS
                for field in dataclasses.fields(Counts)
            }
            jacobian = phases["jacobian"]
            found.append(
                {"width": width, "power": power, "n_rows": n_rows, "n_weights": counter.n_weights}
                | {"active": float(np.mean(model.density_curve_[1:])), "init_fetched": before.weights_fetched}
                | {name: float(value) for name, value in total.items()}
                | {"forward": phases["forward"].through_weights / STEPS, "backward": jacobian.through_weights / STEPS}
                | {"inputs_used": float(forward.inputs_used / forward.n_forward)}
                | {"outputs_used": float(jacobian.outputs_used / jacobian.n_backward)}
            )
            report = found[-1]
            print(
                f"m = {width}, density m^{power}: {report['active']:.3f} active; an iteration takes "
                f"{sum(report[kind] for kind in KINDS) / 1e9:.3g}e9 operations, fetches "
                f"{report['weights_fetched'] / counter.n_weights:.2f} and writes "
                f"{report['weights_written'] / counter.n_weights:.2f} times the weights",
                flush=True,
            )
    return found


def gaussian(smoke):
    """`counts` for initial weights that meet all features, whose pre-activations are normal."""
    return counts(smoke, "gaussian", WIDTHS[:4])


KINDS = {
    "through_weights": "products with W, forward and backward",
    "into_weights": "factors folded into W",
    "elsewhere": "Gram matrix, pending factors, other layers",
    "dense": "dense products with inputs",
}


def rows(smoke):
    """Share of the weights that a product of n rows depends on: inputs of W (forward) and outputs (backward) active
    on any of them."""
    widths, sizes = ((128, 512), (1, 8)) if smoke else ((1024, 4096, 16384), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
    found = []
    for width in widths:
        X, _ = friedman(max(sizes))
        for setting in SETTINGS:
            with worker_threads():
                network, x = setting.start(X, width, 2)
                active = [_active(h) for h in network.forward(x).hidden]
            for n in sizes:
                forward, backward = (layer[:n].any(axis=0).mean() for layer in active)
                found.append(
                    {"setting": setting.name, "width": width, "n_rows": n}
                    | {"density": float(np.mean([layer.mean() for layer in active]))}
                    | {"forward": float(forward), "backward": float(backward)}
                )
        print(f"m = {width}: " + ", ".join(f"{entry['forward']:.3f}" for entry in found if entry["width"] == width))
    return found


def seconds(smoke):
    """Processor seconds of an iteration by width and density, all in turn in one process.

    Those of a clock were up to ten times as many beside other work, and differed from round to round.
    """
    widths, n_rows, rounds = ((128, 256, 512), 64, 1) if smoke else (WIDTHS[:-1], N_ROWS, ROUNDS)
    timed = {(width, power): [] for width in widths for power in POWERS}
    with mock.patch.object(time, "perf_counter", time.process_time):
        for _ in range(rounds):
            for width, power in timed:
                timed[width, power].append(time_ours(width, str(width**power), n_rows, repeats=1)["seconds"])
    found = [
        {"width": width, "power": power, "n_rows": n_rows, "rounds": rounds, "seconds": float(np.median(values))}
        | {"least": min(values), "most": max(values)}
        for (width, power), values in timed.items()
    ]
    for entry in found:
        print(f"m = {entry['width']}, density m^{entry['power']}: {entry['seconds']:.4g} s")
    return found


# ---- how the residual falls -------------------------------------------------------------------------------


class IndependentOutputs(Architecture):
    """As in the paper, output weights of any size are independent: the network does not start at zero."""

    mirrored = False


@dataclass(frozen=True)
class Setting:
    """A kind of network and of inputs.

    Attributes
    ----------
    name : str
    unit_rows : bool
        Whether inputs are scaled to norm one and nothing else, as in the paper, or standardised.
    mirrored : bool
        Whether output weights of that size come in pairs of opposite sign, as the package draws them.
    """

    name: str
    unit_rows: bool
    mirrored: bool = False

    def density(self, width):
        return shifted_density(width) if self.unit_rows else auto_density(width)

    def start(self, X, width, depth, density=None, seed=0):
        """A network of `depth` hidden layers before its first step, and its inputs."""
        density = self.density(width) if density is None else density
        shape = ((width,) * depth, (density,) * depth)
        if self.unit_rows:
            x = X - X.mean(axis=0)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            kind = Architecture if self.mirrored else IndependentOutputs
            architecture = kind(*shape, skip_connections=False, init="gaussian", init_scale=1.0)
        else:
            x = InputScaling.fit(X, np.ones(len(X)), True).transform(X)
            architecture = Architecture(*shape, init_scale=0.05 * np.sqrt(2048 / width))
        return Network.initialise(architecture, x, np.ones(len(x)), 1, seed), x


SETTINGS = (Setting("paper", unit_rows=True), Setting("default", unit_rows=False))
MIRRORED = Setting("mirrored", unit_rows=True, mirrored=True)
TARGETS = ("random", "smooth")
# Steps at most, and the distance from the targets, relative to the first one, at which single precision begins to tell.
MAX_STEPS, REACHED = 12, 1e-4
# Of the series that vary one thing.
BASE = {"width": 4096, "n_rows": 256, "depth": 2, "damping": 1e-4}
SMOKE = {"width": 128, "n_rows": 32, "damping": 1e-3}


def _active(rows):
    """The active set as booleans (n x m)."""
    indptr, indices, _ = rows.pattern.to_csr()
    active = np.zeros(rows.shape, dtype=bool)
    active[np.repeat(np.arange(len(active)), np.diff(indptr)), indices] = True
    return active


def converge(setting, target, *, width, n_rows, depth, damping, density=None):
    """Steps of one fit at a damping that stays: distances ||f - y|| relative to the first one, and flips.

    A flip is a neuron that is active on a row before a step and not after it, or the other way round; their shares are
    means over rows, of all neurons of a layer. `modelled` is what the linear model leaves of the distance; `silent` the
    share of rows for which no neuron of the last layer is active, before the first step and after the last one.
    """
    X, y = friedman(n_rows)
    if target == "random":
        y = np.random.default_rng(1).choice([-1.0, 1.0], n_rows)
    with worker_threads():
        network, x = setting.start(X, width, depth, density)
        y = ((y - y.mean()) / y.std()).astype(x.dtype)[:, None]
        batch = Batch(x, y, np.ones(n_rows))
        loss = SquaredError(1)
        stepper = LevenbergMarquardt(network, loss, SolverOptions(), seed=0, stopwatch=Stopwatch())
        point = stepper.evaluate(batch)
        first = np.linalg.norm(point.activations.output - y)
        distances, modelled, flips, dampings = [1.0], [], [], []
        active = [_active(h) for h in point.activations.hidden]
        initially = active
        for _ in range(MAX_STEPS):
            stepper.damping = damping
            stepper.linearise(batch, point)
            accepted = stepper.step()
            if accepted is None:
                break
            point, before = accepted.point, active
            for weights in network.lazy_weights():
                weights.flush_if_full()
            active = [_active(h) for h in point.activations.hidden]
            modelled.append(float(np.linalg.norm(accepted.solution.model_residual) / first / distances[-1]))
            distances.append(float(np.linalg.norm(point.activations.output - y) / first))
            flips.append([float((a != b).mean()) for a, b in zip(active, before, strict=True)])
            dampings.append(float(accepted.solution.ridge / stepper._mean_diagonal))
            if distances[-1] < REACHED:
                break
    ratios = [after / before for before, after in itertools.pairwise(distances)]
    result = {
        "setting": setting.name,
        "target": target,
        "width": width,
        "n_rows": n_rows,
        "depth": depth,
        "damping": damping,
        "density": density or setting.density(width),
        "distances": distances,
        "ratios": ratios,
        "modelled": modelled,
        "flips": flips,
        "dampings": dampings,
        "active": [float(layer.mean()) for layer in initially],
        "silent": [float((~layer[-1].any(axis=1)).mean()) for layer in (initially, active)],
        "flips_in_all": [float((a != b).mean()) for a, b in zip(active, initially, strict=True)],
    }
    print(
        f"{setting.name}, {target}, m = {width}, n = {n_rows}, {depth} layers, damping {damping}, density "
        f"{result['density']:.3f}: ratios {' '.join(f'{ratio:.2g}' for ratio in ratios[:6])}; flips "
        f"{' '.join(f'{share:.1e}' for share in flips[0]) if flips else '-'}; raised {max(dampings, default=0):.1e}",
        flush=True,
    )
    return result


def series(name, settings=SETTINGS, **changes):
    """`converge` in all settings and to both targets, from the base case but for the changes."""
    for setting in settings:
        for target in TARGETS:
            yield {"series": name} | converge(setting, target, **(BASE | changes))


def convergence(smoke):
    """Series over the width, the damping and the density."""
    if smoke:
        return list(series("width", **SMOKE))
    found = [*series("mirrored", (MIRRORED,))]
    for n_rows in (64, 256, 512):
        for width in (256, 1024, 4096, 16384):
            found += series("width", n_rows=n_rows, width=width)
    for damping in (1e-6, 1e-3, 1e-2, 1e-1, 1.0):
        found += series("damping", damping=damping)
    for density in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        found += series("density", density=density)
    return found


def depths(smoke):
    """A series over the number of hidden layers, for the paper's network also at a density of 0.2."""
    if smoke:
        return list(series("depth", **SMOKE))
    found = [entry for depth in (1, 3, 4, 6, 8) for entry in series("depth", depth=depth)]
    return found + [
        entry for depth in (3, 6) for entry in series("dense depth", SETTINGS[:1], depth=depth, density=0.2)
    ]


# ---- what a sketch is worth -------------------------------------------------------------------------------

SKETCH_WIDTH, SKETCH_TOLERANCE = 2048, 1e-3
# Of the damped system: nearly none, and what fits start from at least.
SKETCH_DAMPINGS = (1e-3, 0.3)


def sketches(smoke):
    """Condition number of the preconditioned system, and inner iterations, by kind and columns of the sketch."""
    sizes, width = ((48,), 128) if smoke else ((128, 256, 512, 1024), SKETCH_WIDTH)
    found = []
    for n_rows in sizes:
        X, y = friedman(n_rows)
        with worker_threads():
            jacobian, residual = linearise(X, ((y - y.mean()) / y.std())[:, None], width, 0.05)
            gram, residual = jacobian.gram.matrix(), residual.astype(np.float64)
            root = scipy.linalg.cholesky(gram, lower=True)
            for columns in (n_rows // 4, n_rows // 2, n_rows, 3 * n_rows // 2, 2 * n_rows, 4 * n_rows, 8 * n_rows):
                features = {
                    kind: sketch_features(jacobian, JacobianSketch(kind, columns, 0)).astype(np.float64)
                    for kind in SKETCHES
                }
                noise = np.random.default_rng(0).standard_normal((n_rows, columns)) / np.sqrt(columns)
                features["gaussian"] = root @ noise
                for kind, Phi in features.items():
                    product = Phi @ Phi.T
                    for damping in SKETCH_DAMPINGS:
                        shift = damping * jacobian.mean_diagonal() * np.eye(n_rows)
                        found.append(
                            {"kind": kind, "n_rows": n_rows, "columns": columns, "damping": damping}
                            | preconditioned(gram + shift, product + shift, residual)
                        )
            for damping in SKETCH_DAMPINGS:
                shift = damping * jacobian.mean_diagonal() * np.eye(n_rows)
                found.append(
                    {"kind": "none", "n_rows": n_rows, "columns": 0, "damping": damping}
                    | preconditioned(gram + shift, np.eye(n_rows), residual)
                )
        for entry in found:
            if entry["n_rows"] == n_rows:
                print("{kind}, n = {n_rows}, {columns} columns, damping {damping}: ".format(**entry), end="")
                print(f"condition {entry['condition']:.3g}, {entry['n_iter']} iterations", flush=True)
    return found


def preconditioned(system, preconditioner, rhs):
    """Condition number of ``preconditioner^-1 system``, and inner iterations for this right-hand side."""
    spectrum = scipy.linalg.eigh(system, preconditioner, eigvals_only=True, check_finite=False)
    factor = scipy.linalg.cho_factor(preconditioner, lower=True)
    solved = pcg(
        lambda C: system @ C, rhs, lambda R: scipy.linalg.cho_solve(factor, R), tol=SKETCH_TOLERANCE, max_iter=2000
    )
    return {"condition": float(spectrum[-1] / spectrum[0]), "n_iter": solved.n_iter}


MEASUREMENTS = {
    "counts": counts,
    "gaussian": gaussian,
    "rows": rows,
    "seconds": seconds,
    "convergence": convergence,
    "depths": depths,
    "sketches": sketches,
}


def measure(names, smoke):
    """Run measurements, each of which replaces its own earlier results in the file."""
    for name in names:
        measured_commit = commit()
        results = MEASUREMENTS[name](smoke)
        if not smoke:
            measured = {"commit": measured_commit, "machine": machine(), "results": digits(results, 4)}
            save("theory.json", load("theory.json") | {name: measured}, depth=3)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("what", nargs="*", choices=[*MEASUREMENTS, "all"], default="all")
    arguments = parser.parse_args()
    measure([name for name in MEASUREMENTS if name in arguments.what or "all" in arguments.what], arguments.smoke)
