"""Runs every benchmark, one after the other: ``python -m benchmarks [NAME …]``."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Runs the benchmarks named on the command line, else all."""
    here = Path(__file__).parent
    names = sys.argv[1:] or sorted(path.stem for path in here.glob("[!_]*.py"))
    for name in names:
        print(f"\n# {name}\n", flush=True)
        sys.argv[1:] = []
        runpy.run_path(str(here / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
