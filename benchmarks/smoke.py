"""Run every program and every benchmark of the suite at its smallest, to see that none is broken; no time is judged.

    python benchmarks/smoke.py                   # all
    python benchmarks/smoke.py speed theory      # what has these words in its path

They run one after the other in this process, since most of what each takes is to import what the others import as well.
"""

import contextlib
import importlib
import inspect
import io
import pathlib
import runpy
import sys
import time
import traceback
import warnings

HERE = pathlib.Path(__file__).resolve().parent


def run_program(path):
    sys.argv = [str(path), "--smoke"]
    runpy.run_path(str(path), run_name="__main__")


def run_suite(path):
    module = importlib.import_module(f"suite.{path.stem}")
    for title, topic in inspect.getmembers(module, inspect.isclass):
        if topic.__module__ == module.__name__:
            parameters = [values[0] for values in topic.params]
            for benchmark in (member for member in dir(topic) if member.startswith(("time_", "peakmem_"))):
                instance = topic()
                instance.setup(*parameters)
                getattr(instance, benchmark)(*parameters)
                print(f"{title}.{benchmark} ran at {parameters}")


def main(words):
    failed = []
    start = time.perf_counter()
    for path in sorted(HERE.glob("*/*.py")):
        name, of_suite = str(path.relative_to(HERE)), path.parent.name == "suite"
        is_program = of_suite or 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
        if not is_program or not any(word in name for word in words or [""]):
            continue
        began, printed = time.perf_counter(), io.StringIO()
        # What a program prints is of use where it fails, and where it leaves something out.
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            try:
                (run_suite if of_suite else run_program)(path)
            except (Exception, SystemExit):
                traceback.print_exc(file=printed)
                failed.append(name)
        print(f"{name}: {'failed' if name in failed else 'ran'}, {time.perf_counter() - began:.1f} s", flush=True)
        lines = printed.getvalue().splitlines()
        for line in lines if name in failed else (line for line in lines if "left out" in line.lower()):
            print(f"    {line}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s in all")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
