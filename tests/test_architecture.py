"""What the package is made of: who may import whom, what the root offers, and what every file must not hold."""

import ast
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import marin_trace
from marin_trace import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "marin_trace"

EVERYBODY = {"errors", "io", "safe_text"}
"""What each part of the package may import."""

DIRECT_IMPORTS = {
    "errors": set[str](),
    "io": set[str](),
    "safe_text": set[str](),
    "ir": set[str](),
    "storage": set[str](),
    "tracing": {"ir"},
    "workers": {"storage"},
    "runtime": {"workers", "storage"},
    "lowering": {"ir", "runtime"},
    "planning": {"lowering", "runtime"},
    "legacy": {"lowering"},
    "migration": set[str](),
}
"""The layers: a part may import what is named here, and what those may."""

TOP = {"executor", "cli", "__init__"}
"""May import everything, and are imported by no other part."""

HEAVY = ["cloudpickle", "draccus", "fray", "fsspec", "jax", "numpy", "pydantic", "ray", "rich", "yaml"]

TEXT_SUFFIXES = {"", ".cfg", ".in", ".ini", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}


def allowed_imports(part: str) -> set[str]:
    """Every part that a part may import, itself included."""
    allowed = {part} | EVERYBODY
    for below in DIRECT_IMPORTS[part]:
        allowed |= allowed_imports(below)
    return allowed


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_parts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and part of each import of the package in a file, wherever it stands; ``__init__`` is the package's root.

    Imports under TYPE_CHECKING count: an annotation is knowledge too.
    """
    for node in ast.walk(ast.parse(path.read_text(), path)):
        match node:
            case ast.Import(names=aliases):
                dotted = [alias.name for alias in aliases]
            case ast.ImportFrom(module="marin_trace", names=aliases):
                dotted = [f"marin_trace.{alias.name}" for alias in aliases]
            case ast.ImportFrom(module=str(module), level=0):
                dotted = [module]
            case _:
                continue
        for name in dotted:
            package, *below = name.split(".")
            if package == "marin_trace":
                part = below[0] if below else "__init__"
                yield node.lineno, part if part in DIRECT_IMPORTS or part in TOP else "__init__"


@cache
def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def own_files() -> list[Path]:
    """The text files of the project: not what is built, fetched or produced in its checkout."""
    folders = (ROOT / name for name in (".ci", "benchmarks", "docs", "experiments", "marin_trace", "tests"))
    paths = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    return sorted(path for path in paths if path.is_file() and path.suffix in TEXT_SUFFIXES)


def imported_by_python(statement: str) -> set[str]:
    """The top-level modules that are loaded after a statement in a fresh interpreter."""
    return {name.partition(".")[0] for name in modules_after(statement)}


def modules_after(statement: str) -> set[str]:
    """All modules that are loaded after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_file_belongs_to_a_layer() -> None:
    assert {part_of(path) for path in package_files()} <= DIRECT_IMPORTS.keys() | TOP


def test_parts_import_only_what_lies_below_them() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {part_of(path)} imports {part}"
        for path in package_files()
        if part_of(path) not in TOP
        for line, part in imported_parts(path)
        if part not in allowed_imports(part_of(path))
    ]
    assert wrong == []


def test_the_layers_have_no_cycle() -> None:
    for part, below in DIRECT_IMPORTS.items():
        assert all(part not in allowed_imports(other) for other in below)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import marin_trace.ir.refs as refs", ["ir"]),
        ("from marin_trace import io, errors", ["io", "errors"]),
        ("from marin_trace import step", ["__init__"]),
        ("import marin_trace", ["__init__"]),
        ("def f():\n    from marin_trace.cli.main import main", ["cli"]),
        ("if TYPE_CHECKING:\n    from marin_trace.runtime import x", ["runtime"]),
        ("import marin_tracer, os\nfrom ast import parse", []),
    ],
)
def test_the_check_sees_every_kind_of_import(tmp_path: Path, source: str, parts: list[str]) -> None:
    file = tmp_path / "module.py"
    file.write_text(source)
    assert [part for _, part in imported_parts(file)] == parts


def test_library_code_of_experiments_imports_only_io() -> None:
    files = sorted((ROOT / "experiments" / "lib").rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {part}"
        for path in files
        for line, part in imported_parts(path)
        if part != "io"
    ]
    assert wrong == []


def test_the_package_knows_nothing_of_experiments_and_tests() -> None:
    outside = re.compile(r"^\s*(?:from|import)\s+(?:experiments|tests|benchmarks)\b", re.MULTILINE)
    assert [str(path) for path in package_files() if outside.search(path.read_text())] == []


def test_the_root_offers_few_names_and_all_of_them_exist() -> None:
    promised = {
        *("step", "deferred", "output", "StepRef", "versioned", "unversioned", "trace", "lower", "Graph"),
        *("executor_main", "parse_flags", "StepSpec", "Artifact", "ResourceConfig", "register_encoder"),
        "MarinTraceError",
    }
    names = set(marin_trace.__all__)
    assert promised <= names
    assert len(names) <= 25
    assert [name for name in names if getattr(marin_trace, name, None) is None] == []
    assert names <= set(dir(marin_trace))


def test_importing_the_root_loads_nothing() -> None:
    found = modules_after("import marin_trace")
    assert {name for name in found if name.startswith("marin_trace")} == {"marin_trace"}


def test_what_a_pipeline_is_written_with_loads_nothing_heavy() -> None:
    names = (
        "Graph, MarinTraceError, ResourceConfig, StepRef, deferred, output, register_encoder, step, trace, versioned"
    )
    assert imported_by_python(f"from marin_trace import {names}").isdisjoint(HEAVY)


def test_a_lease_keeper_that_has_nothing_to_do_yet_loads_next_to_nothing() -> None:
    found = modules_after("import marin_trace.runtime.keeper_process")
    assert {name for name in found if name.startswith("marin_trace.")} == {
        "marin_trace.runtime",
        "marin_trace.runtime.clock",
        "marin_trace.runtime.keeper_process",
    }
    assert found.isdisjoint({"dataclasses", "logging", "subprocess"})


def test_a_jobs_process_does_not_load_what_traces_and_lowers() -> None:
    found = modules_after(
        "import marin_trace.workers.local_main, marin_trace.runtime.disk_cache, marin_trace.lowering.resolved_body"
    )
    assert not [name for name in found if name.startswith(("marin_trace.tracing", "marin_trace.ir.graph", "asyncio"))]


def test_tracing_and_lowering_load_no_engine() -> None:
    assert imported_by_python("from marin_trace import trace, lower").isdisjoint({"fray", "jax", "ray"})


IMPORTED_ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.startswith("marin_trace"):
            raise
"""
"""Imports modules, as far as that takes no installed package."""


def oldest_python() -> str:
    """An interpreter of the oldest version that the package supports; skips where there is none."""
    for name in ("python3.11", "python3"):
        # Outside the checkout, which may choose a version for whatever is started in it.
        found = subprocess.run(
            ["sh", "-c", f"{name} -c 'import sys; print(sys.executable, *sys.version_info[:2])'"],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0 and found.stdout.split()[1:] == ["3", "11"]:
            return found.stdout.split()[0]
    pytest.skip("there is no Python 3.11 here")


def test_every_module_can_be_imported_by_the_oldest_python() -> None:
    files = [path for path in package_files() if path.name != "__init__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    done = subprocess.run(
        [oldest_python(), "-B", "-c", IMPORTED_ALONE, *names],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def exception_classes() -> list[type[Exception]]:
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    return [value for value in found if value.__module__ == errors.__name__]


def exception_example(cls: type[Exception]) -> Exception:
    if issubclass(cls, ExceptionGroup):
        return cls("2 steps failed", [ValueError("a"), errors.StepHeldElsewhere("b")])
    return cls("first line\n  at file.py:3")


@pytest.mark.parametrize("cls", exception_classes())
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_exceptions_pickle(cls: type[Exception], protocol: int) -> None:
    error = exception_example(cls)
    error.add_note("step a, attempt 1")
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert copy.__notes__ == ["step a, attempt 1"]
    if isinstance(error, ExceptionGroup):
        assert [repr(inner) for inner in copy.exceptions] == [repr(inner) for inner in error.exceptions]


@pytest.mark.parametrize("cls", exception_classes())
def test_exceptions_are_public_documented_and_of_one_tree(cls: type[Exception]) -> None:
    assert cls.__name__ in errors.__all__
    assert cls.__doc__
    assert issubclass(cls, errors.MarinTraceError | errors.MarinTraceWarning)
    assert re.search(rf"\b{cls.__name__}\b", errors.__doc__ or "")


# Spelled in two parts, so that this file does not hold what it looks for.
UNWANTED = {
    "a note to self": r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b",
    "a path of one machine": r"(?<![\w.])/(?:work|root|ho" r"me/\w+|Us" r"ers/\w+)/",
    "a package index": r"--(?:extra-)?index" r"-url|--find" r"-links|/simp" r"le\b",
    "a merge conflict": r"^(?:<{7}|>{7}) ",
}


@pytest.mark.parametrize("what", UNWANTED)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(UNWANTED[what], re.MULTILINE)
    found = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for path in own_files()
        for text in [path.read_text(encoding="utf-8")]
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_no_exception_is_swallowed() -> None:
    """A handler does something; what may be ignored is named with ``contextlib.suppress``."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*package_files(), *sorted((ROOT / "experiments").rglob("*.py"))]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    assert silent == []


def test_dependencies_never_name_the_unrelated_fray() -> None:
    requirements = (ROOT / "pyproject.toml").read_text() + (ROOT / "constraints.txt").read_text()
    assert not re.search(r"""(?m)(?:^|["'])fray\b(?!\s*=\s*\[)""", requirements)
