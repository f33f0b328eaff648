"""The command lines of the programs: all take --smoke."""

import argparse
import pathlib

from common.provenance import print_provenance
from common.sets import DATA


def command_line(description):
    """A parser for --smoke and --data, to which a program adds its own arguments."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small problems, to see that everything runs")
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="the folder of the sets (default: %(default)s)")
    return parser


def network_options(arguments):
    """Parameters of a small network for --smoke, none otherwise."""
    return {"hidden_layer_sizes": (64, 64), "max_iter": 2} if arguments.smoke else {}


def run_chosen(description, measurements, call=lambda measurement, arguments: measurement(arguments)):
    """Call those of the measurements that are named on the command line, or all, with its arguments."""
    by_name = {measurement.__name__: measurement for measurement in measurements}
    parser = command_line(description)
    parser.add_argument("measurements", nargs="*", choices=[*by_name, "all"], default="all")
    arguments = parser.parse_args()
    print_provenance()
    for name in by_name if "all" in arguments.measurements else arguments.measurements:
        call(by_name[name], arguments)
