"""Run every benchmark of the suite once at its smallest parameters, to see that none is broken; no time is judged.

python benchmarks/smoke.py
"""

import importlib
import inspect
import pkgutil

import suite


def main():
    for module_info in pkgutil.iter_modules(suite.__path__):
        module = importlib.import_module(f"suite.{module_info.name}")
        for name, topic in inspect.getmembers(module, inspect.isclass):
            if topic.__module__ != module.__name__:
                continue
            parameters = [values[0] for values in topic.params]
            benchmarks = [member for member in dir(topic) if member.startswith(("time_", "peakmem_"))]
            for benchmark in benchmarks:
                instance = topic()
                instance.setup(*parameters)
                getattr(instance, benchmark)(*parameters)
            print(f"{module_info.name}.{name}: {len(benchmarks)} benchmarks ran at {parameters}")


if __name__ == "__main__":
    main()
