"""What the experiments of a tree would run: printed as JSON by a process of its own, whose ``experiments`` they are.

    python print_experiments.py TREE

For each file that calls ``executor_main``: its steps by name, each with the function that it calls, the config that
this is given and the steps that it needs. Paths of outputs are written as ``<name>``, so that recipes are compared and
not the ways in which they are hashed.
"""

import contextlib
import dataclasses
import json
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import marin_trace
from marin_trace import legacy, lower

PREFIX = "/prefix"


class Given(BaseException):
    """What an experiment has handed to ``executor_main``, which ends it."""


def capture(steps: Any = (), **_: Any) -> None:
    raise Given(steps)


def install(tree: Path) -> None:
    """Makes the tree's modules importable, and puts the bridge where they import the older executor from."""
    sys.path[:0] = [str(tree), str(tree / "lib" / "marin" / "src")]
    # A directory without __init__.py would come after a package of that name anywhere on the path.
    experiments = types.ModuleType("experiments")
    experiments.__path__ = [str(tree / "experiments")]
    sys.modules["experiments"] = experiments
    marin_trace.executor_main = capture
    names: dict[str, Any] = {name: getattr(legacy, name) for name in legacy.__all__}
    names |= {name: getattr(marin_trace, name) for name in marin_trace.__all__ if name not in names}
    for name in ("marin.execution", "marin.execution.executor"):
        module = types.ModuleType(name)
        vars(module).update(names, executor_main=capture)
        sys.modules[name] = module
    sys.modules["marin.execution"].executor = sys.modules["marin.execution.executor"]  # type: ignore[attr-defined]
    import marin

    marin.execution = sys.modules["marin.execution"]  # type: ignore[attr-defined]


def steps_of(script: Path) -> dict[str, Any] | None:
    """The steps of an experiment by name; None for a file that runs nothing."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            runpy.run_path(str(script), run_name="__main__")
    except Given as given:
        specs = lower(given.args[0], prefix=PREFIX)
    else:
        return None
    names = {spec.output_path: spec.name for spec in specs}
    needs = {spec.name: {dep.name for dep in spec.deps} for spec in specs}
    return {spec.name: {**described(spec, names), "needs": sorted(direct(spec.name, needs))} for spec in specs}


def direct(name: str, needs: dict[str, set[str]]) -> set[str]:
    """The steps that a step waits for, without those that it waits for through others anyway."""
    return {need for need in needs[name] if not any(need in upstream(other, needs) for other in needs[name])}


def upstream(name: str, needs: dict[str, set[str]]) -> set[str]:
    return needs[name].union(*(upstream(need, needs) for need in needs[name]))


def described(spec: Any, names: dict[str, str]) -> dict[str, Any]:
    from marin.utilities.jobs import FINISHED

    FINISHED.clear()
    spec.fn(spec.output_path)
    [(job, config)] = FINISHED
    text = json.dumps(dataclasses.asdict(config), sort_keys=True, default=repr)
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, f"<{names[path]}>")
    return {"function": job, "config": text}


def main() -> None:
    tree = Path(sys.argv[1])
    install(tree)
    scripts = sorted((tree / "experiments").rglob("*.py"))
    found = {str(script.relative_to(tree)): steps_of(script) for script in scripts}
    print(json.dumps({name: steps for name, steps in found.items() if steps is not None}, indent=1))


if __name__ == "__main__":
    main()
